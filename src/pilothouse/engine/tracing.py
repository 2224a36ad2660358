"""What a request out of a step bears, so that whoever answers it can join the run's trace."""

from __future__ import annotations

from pilothouse.engine.journal import current_path
from pilothouse.telemetry import tracing


def trace_headers() -> dict[str, str]:
    """The header `traceparent` of the step that is under way; none where nobody traces."""
    return tracing.headers(current_path.get())
