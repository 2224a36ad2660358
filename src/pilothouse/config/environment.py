"""The environment: single values of it, and what of it other processes see."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

PARENT_VARIABLE = "PILOTHOUSE_PARENT"
HARMLESS = frozenset({"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
HARMLESS_PREFIXES = ("LANG", "LC_", "PYTHON", "SSL_CERT_")
"""Variables that hold no secrets: every isolated process sees them."""


def environment_value(name: str) -> str | None:
    """A variable that holds a key or a secret; an empty one counts as none."""
    return os.environ.get(name) or None


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child process that stops when this one is gone, with some variables changed."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid()), **changes}


def ambient_traceparent() -> str | None:
    """The trace that the calling code is in, as a `traceparent` header, where it has loaded OpenTelemetry."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def isolated_environment(secrets: Collection[str]) -> dict[str, str]:
    """What an isolated process sees of this environment: the variables named in `secrets`, and harmless ones."""
    seen = HARMLESS.union(secrets)
    return {name: text for name, text in os.environ.items() if name in seen or name.startswith(HARMLESS_PREFIXES)}


def is_child() -> bool:
    """Whether the process that made this one's environment still runs; once it was so, it can end."""
    return os.environ.get(PARENT_VARIABLE) == str(os.getppid())
