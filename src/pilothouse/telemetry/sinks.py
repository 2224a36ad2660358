"""Sinks: where typed events go."""

from __future__ import annotations

import logging
from dataclasses import fields

from pilothouse.telemetry.events import Emitter, Event
from pilothouse.telemetry.logs import get_logger

LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}


def log_event(event: Event) -> None:
    """Writes an event as one log line: its name as the message, its fields as context."""
    logger = get_logger("pilothouse.engine")
    if logger.is_enabled_for(LEVELS[event.level]):
        write = getattr(logger, event.level)
        write(event.name, **{field.name: getattr(event, field.name) for field in fields(event)})


def default_emitter() -> Emitter:
    return Emitter([log_event])
