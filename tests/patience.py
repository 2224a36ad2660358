"""How long tests wait for what must come: a busy machine is slow, not wrong."""

from __future__ import annotations

WAIT_SECONDS = 180.0
