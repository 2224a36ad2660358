"""Sinks: where typed events go."""

from __future__ import annotations

from dataclasses import fields

from pilothouse.telemetry.events import Emitter, Event
from pilothouse.telemetry.logs import get_logger


def log_event(event: Event) -> None:
    """Writes an event as one log line: its name as the message, its fields as context."""
    write = getattr(get_logger("pilothouse.engine"), event.level)
    write(event.name, **{field.name: getattr(event, field.name) for field in fields(event)})


def default_emitter() -> Emitter:
    return Emitter([log_event])
