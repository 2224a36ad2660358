"""What a typed event is; `events.py` lists them all."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `name` and `level` are the same for all events of a class."""

    name: ClassVar[str] = "event"
    level: ClassVar[str] = "info"


CONTENT = "content"


def content() -> str | None:
    """A field for what people and models said."""
    return field(default=None, metadata={CONTENT: True})


_told: dict[str, tuple[str, ...]] = {}
"""By the names of events: looked up once, since every line of the log needs it."""


def told_fields(event: Event) -> tuple[str, ...]:
    """The fields of an event without those that hold content."""
    known = _told.get(event.name)
    if known is None:
        known = _told[event.name] = tuple(each.name for each in fields(event) if CONTENT not in each.metadata)
    return known


def has_content(event: Event) -> bool:
    """Whether some of its fields hold what people and models said."""
    return len(told_fields(event)) < len(event.__slots__)
