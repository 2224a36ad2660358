"""Schedules: which of the fires that have become due take place, and what a fire does while the last run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

GRACE_SECONDS = 60.0
"""A fire this late is still on time: a restart of the scheduler takes less."""


class CatchUp(StrEnum):
    """What becomes of fires that were missed: dropped, the latest of them made up for, or all of them."""

    NONE = "none"
    ONE = "one"
    ALL = "all"


class Overlap(StrEnum):
    """What a fire does while the run of the last one has not ended: start beside it, skip, or cancel it first."""

    ALLOW = "allow"
    SKIP = "skip"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The instants that fire, oldest first, and how many were dropped."""

    fires: Sequence[int]
    dropped: int


def choose_fires(due: Sequence[int], now: int, catch_up: CatchUp, limit: int) -> Chosen:
    """Which of the `due` instants fire at `now`, all in microseconds and ascending; `limit` bounds CatchUp.ALL.

    An instant within the grace fires whatever the policy. Of those to be made up for, the oldest are dropped first.
    """
    edge = now - int(GRACE_SECONDS * 1_000_000)
    on_time = [instant for instant in due if instant >= edge]
    missed = [instant for instant in due if instant < edge]
    match catch_up:
        case CatchUp.NONE:
            fires = on_time
        case CatchUp.ONE:
            fires = on_time or missed[-1:]
        case CatchUp.ALL:
            fires = (missed + on_time)[-limit:]
    return Chosen(fires, len(due) - len(fires))
