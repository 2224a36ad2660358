"""Circuit breakers: a dependency that keeps failing is left alone for a while, then tried with a few probes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens, for how long, and how it closes. Times in microseconds.

    It opens when of the calls of a window at least `failures` failed and at least `rate` of all. It stays open for
    `open_us`, twice as long each time its probes fail, up to `longest_open_us`. Then at most `probes` calls are let
    through at once; `successes` of them in a row close it. A probe that tells nothing for `probe_us` is forgotten, so
    that a prober that died cannot keep a breaker half open.
    """

    failures: int = 5
    rate: float = 0.5
    window_us: int = 60_000_000
    open_us: int = 5_000_000
    longest_open_us: int = 300_000_000
    probes: int = 2
    successes: int = 2
    probe_us: int = 180_000_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one dependency's breaker, shared by all workers. Instants in microseconds.

    While closed, `successes` and `failures` count the window that began at `window_at`; while half open, `successes`
    counts probes. `opens` is how often it has opened in a row.
    """

    name: str
    state: BreakerState = BreakerState.CLOSED
    successes: int = 0
    failures: int = 0
    window_at: int = 0
    open_until: int = 0
    opens: int = 0
    probes: int = 0
    probes_at: int = 0
    changed_at: int = 0
    reason: str = ""


def admit(breaker: Breaker, now: int, rule: BreakerRule) -> tuple[Breaker, int]:
    """The breaker after one more call asks to pass, and how long that has to wait: 0 where it passes."""
    match breaker.state:
        case BreakerState.CLOSED:
            return breaker, 0
        case BreakerState.OPEN if now < breaker.open_until:
            return breaker, breaker.open_until - now
        case BreakerState.OPEN:
            opened = replace(
                breaker, state=BreakerState.HALF_OPEN, successes=0, failures=0, probes=1, probes_at=now, changed_at=now
            )
            return opened, 0
        case BreakerState.HALF_OPEN:
            return _admit_probe(breaker, now, rule)


def _admit_probe(breaker: Breaker, now: int, rule: BreakerRule) -> tuple[Breaker, int]:
    forgotten_at = breaker.probes_at + rule.probe_us
    under_way = 0 if now >= forgotten_at else breaker.probes
    if under_way >= rule.probes:
        return breaker, min(forgotten_at - now, rule.open_us)
    return replace(breaker, probes=under_way + 1, probes_at=now), 0


def record(breaker: Breaker, now: int, rule: BreakerRule, *, successes: int, failures: int, reason: str) -> Breaker:
    """The breaker after calls that it had let through have ended; `reason` is that of the latest failure."""
    match breaker.state:
        case BreakerState.CLOSED:
            return _record_closed(breaker, now, rule, successes, failures, reason)
        case BreakerState.HALF_OPEN:
            return _record_probes(breaker, now, rule, successes, failures, reason)
        case BreakerState.OPEN:
            return breaker  # calls that were under way when it opened tell nothing new


def _record_closed(
    breaker: Breaker, now: int, rule: BreakerRule, successes: int, failures: int, reason: str
) -> Breaker:
    if now - breaker.window_at >= rule.window_us:
        breaker = replace(breaker, successes=0, failures=0, window_at=now)
    counted = replace(breaker, successes=breaker.successes + successes, failures=breaker.failures + failures)
    share = counted.failures / max(1, counted.failures + counted.successes)
    if failures and counted.failures >= rule.failures and share >= rule.rate:
        return _open(counted, now, rule, reason)
    return counted


def _record_probes(
    breaker: Breaker, now: int, rule: BreakerRule, successes: int, failures: int, reason: str
) -> Breaker:
    if failures:
        return _open(breaker, now, rule, reason)
    passed = breaker.successes + successes
    if passed >= rule.successes:
        return Breaker(breaker.name, window_at=now, changed_at=now)
    return replace(breaker, successes=passed, probes=max(0, breaker.probes - successes))


def _open(breaker: Breaker, now: int, rule: BreakerRule, reason: str) -> Breaker:
    lasts = min(rule.longest_open_us, rule.open_us * 2 ** min(breaker.opens, 20))
    return Breaker(
        breaker.name,
        BreakerState.OPEN,
        open_until=now + lasts,
        opens=breaker.opens + 1,
        changed_at=now,
        reason=reason,
    )
