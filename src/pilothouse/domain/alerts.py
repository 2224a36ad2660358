"""Alerts: what a rule says, and how an episode of it goes from pending to firing to resolved.

A condition fires once it has held for `for_seconds`, and is resolved once it has been clear for `keep_seconds`, by a
margin. A subject that keeps coming back is held for longer each time, so that it does not flap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import ClassVar

SECOND_US = 1_000_000

GAP_SECONDS = 60.0
"""A pending condition that nobody has looked at for so long begins anew."""

FLAP_US = 3_600 * SECOND_US
"""How far back the episodes of a subject count as flapping."""

LONGEST_KEEP_SECONDS = 3_600.0


class Severity(StrEnum):
    """`info`: good to know. `warning`: look at it today. `critical`: look at it now."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class AlertState(StrEnum):
    """Of an episode: the condition holds, has held for long enough to be told, or is over."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When to alert. `threshold` is in `unit`; `fires_below`: at or under it, else at or over it.

    `for_seconds` is how long the condition must hold before it fires, `keep_seconds` how long it must be clear before
    it is resolved. Clear is not only short of the threshold, but by a tenth of it.
    """

    name: str
    severity: Severity
    measures: str
    threshold: float
    unit: str
    runbook: str
    for_seconds: float = 60.0
    keep_seconds: float = 300.0
    fires_below: bool = False
    is_enabled: bool = True

    def is_met(self, value: float) -> bool:
        return value <= self.threshold if self.fires_below else value >= self.threshold

    def is_clear(self, value: float) -> bool:
        """Whether a condition that was met is over; between this and `is_met` it stays what it was."""
        margin = 0.1 * abs(self.threshold)
        return value > self.threshold + margin if self.fires_below else value < self.threshold - margin


@dataclass(frozen=True, slots=True)
class AlertChange:
    """What pilothouse.toml says of a rule, as [alerts.NAME]; None: as it is."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    enabled: bool | None = None
    threshold: float | None = None
    for_seconds: float | None = None
    severity: Severity | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}; it must be a number")
        if self.for_seconds is not None and not (self.for_seconds >= 0 and math.isfinite(self.for_seconds)):
            raise ValueError(f"for_seconds is {self.for_seconds:g}; it must be 0 or more")


def changed(rules: Iterable[AlertRule], changes: Mapping[str, AlertChange]) -> tuple[AlertRule, ...]:
    """The rules as settings want them."""
    return tuple(_changed(rule, changes[rule.name]) if rule.name in changes else rule for rule in rules)


def _changed(rule: AlertRule, change: AlertChange) -> AlertRule:
    return replace(
        rule,
        is_enabled=rule.is_enabled if change.enabled is None else change.enabled,
        threshold=rule.threshold if change.threshold is None else change.threshold,
        for_seconds=rule.for_seconds if change.for_seconds is None else change.for_seconds,
        severity=change.severity or rule.severity,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule has measured of one subject, in the rule's unit. `text` is a sentence with the figures and the next
    command. `agent` and `tenant` are empty where it is about neither.
    """

    rule: str
    subject: str
    value: float
    text: str
    agent: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """One time that a rule's condition holds for one subject. Instants in microseconds; `met_at` is the last one at
    which the condition was met.
    """

    state: AlertState
    since: int
    met_at: int
    fired_at: int | None = None
    resolved_at: int | None = None


def advance(rule: AlertRule, live: Episode | None, value: float | None, now: int, *, flaps: int = 0) -> Episode | None:
    """The episode after a look at `now`; None where there is none, or it was pending and its condition has gone.

    `live` is the one before, pending or firing; `value` None: its subject is not there any more. `flaps` is how many
    episodes of it have fired in the hour before.
    """
    if live is not None and live.state is AlertState.FIRING:
        return _keep(rule, live, value, now, flaps)
    if value is None or not rule.is_met(value):
        return None
    if live is None or now - live.met_at > GAP_SECONDS * SECOND_US:
        live = Episode(AlertState.PENDING, now, now)
    if now - live.since >= rule.for_seconds * SECOND_US:
        return replace(live, state=AlertState.FIRING, met_at=now, fired_at=now)
    return replace(live, met_at=now)


def _keep(rule: AlertRule, firing: Episode, value: float | None, now: int, flaps: int) -> Episode:
    if value is not None and not rule.is_clear(value):
        return replace(firing, met_at=now)
    if now - firing.met_at >= keep_seconds(rule, flaps) * SECOND_US:
        return replace(firing, state=AlertState.RESOLVED, resolved_at=now)
    return firing


def keep_seconds(rule: AlertRule, flaps: int) -> float:
    """How long a condition must be clear before it is over: twice as long for each time it came back in the hour."""
    return min(rule.keep_seconds * 2.0 ** min(flaps, 12), max(rule.keep_seconds, LONGEST_KEEP_SECONDS))


@dataclass(frozen=True, slots=True)
class Matcher:
    """Which alerts a silence is for: patterns such as `agent:refund*`, each of which must match."""

    rule: str = "*"
    subject: str = "*"
    agent: str = "*"

    def covers(self, rule: str, subject: str, agent: str) -> bool:
        pairs = ((rule, self.rule), (subject, self.subject), (agent, self.agent))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)


def room(sent: int, held: int, limit: int) -> tuple[int, bool]:
    """How many of the `held` messages go out alone, and whether the rest follows as one digest.

    `sent` of at most `limit` went out in the last ten minutes. The last place is for the digest.
    """
    free = max(0, limit - sent)
    if held <= free:
        return held, False
    return (free - 1, True) if free else (0, False)
