"""Sinks: where typed events go."""

from __future__ import annotations

from pilothouse.domain.traces import span_of_attempt, trace_of
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import RunClaimed, RunDropped, RunSettled
from pilothouse.telemetry.logs import log_event

ENDS = frozenset({RunSettled, RunDropped})


class EventLog:
    """Writes each event as one log line: its name as the message, its fields as context, with its run's trace."""

    def __init__(self) -> None:
        self._running: dict[str, RunClaimed] = {}

    def __call__(self, event: Event) -> None:
        if type(event) is RunClaimed:
            self._running[event.run_id] = event
        log_event(event, self._trace)
        if type(event) in ENDS:
            self._running.pop(event.run_id, None)  # type: ignore[attr-defined]  # its type was just looked at

    def _trace(self, event: Event) -> dict[str, str]:
        run_id = getattr(event, "run_id", "")
        claimed = self._running.get(run_id)
        if claimed is None:
            return {}
        return {"trace_id": trace_of(claimed, 1.0).id, "span_id": span_of_attempt(run_id, claimed.attempt)}
