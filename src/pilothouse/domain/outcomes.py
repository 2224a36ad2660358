"""What a handler may return instead of a result, to say how its attempt ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed; try again, after `after_seconds` instead of the agent's own back-off if given."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: queue the run again in `seconds`, without spending an attempt."""

    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fatal:
    """The run failed and another attempt would not help."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run is not wanted any more."""

    reason: str


Outcome = Retry | Snooze | Fatal | Cancel
