"""Circuit breakers: whatever happens, one opens for a bounded time, probes are bounded, and it always recovers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.breakers import Breaker, BreakerRule, BreakerState, admit, record

RULE = BreakerRule()
CLOSED = Breaker("model:x")


def failed(breaker: Breaker, now: int, times: int = 1) -> Breaker:
    for _ in range(times):
        breaker = record(breaker, now, RULE, successes=0, failures=1, reason="down")
    return breaker


def test_it_opens_at_its_threshold_and_says_why() -> None:
    assert failed(CLOSED, 0, RULE.failures - 1).state == BreakerState.CLOSED

    opened = failed(CLOSED, 0, RULE.failures)

    assert (opened.state, opened.reason, opened.open_until) == (BreakerState.OPEN, "down", RULE.open_us)


def test_failures_among_many_successes_open_nothing() -> None:
    busy = record(CLOSED, 0, RULE, successes=100, failures=0, reason="")

    assert failed(busy, 1, 20).state == BreakerState.CLOSED


def test_old_failures_are_forgotten() -> None:
    almost = failed(CLOSED, 0, RULE.failures - 1)

    assert failed(almost, RULE.window_us, 1).state == BreakerState.CLOSED


def test_so_many_probes_at_once_and_no_more() -> None:
    opened = failed(CLOSED, 0, RULE.failures)
    assert admit(opened, RULE.open_us - 1, RULE)[1] == 1

    waits = []
    for _ in range(RULE.probes + 2):
        opened, wait = admit(opened, RULE.open_us, RULE)
        waits.append(wait)

    assert waits[: RULE.probes] == [0] * RULE.probes
    assert all(wait > 0 for wait in waits[RULE.probes :])


def test_each_failed_probe_doubles_the_time() -> None:
    breaker, now, lasted = failed(CLOSED, 0, RULE.failures), 0, []
    for _ in range(12):
        lasted.append(breaker.open_until - now)
        now = breaker.open_until
        breaker, _ = admit(breaker, now, RULE)
        breaker = failed(breaker, now)

    assert lasted[:3] == [RULE.open_us, 2 * RULE.open_us, 4 * RULE.open_us]
    assert max(lasted) == RULE.longest_open_us


EVENTS = st.lists(
    st.tuples(st.sampled_from(["admit", "success", "failure", "forget"]), st.integers(0, 400_000_000)), max_size=60
)


@given(EVENTS)
def test_no_breaker_is_stuck(events: list[tuple[str, int]]) -> None:
    """After any history, a dependency that is well again is used again in bounded time."""
    breaker, now = CLOSED, 0
    for what, passed in events:
        now += passed
        match what:
            case "admit":
                breaker, _ = admit(breaker, now, RULE)
            case "success":
                breaker = record(breaker, now, RULE, successes=1, failures=0, reason="")
            case "failure":
                breaker = failed(breaker, now)
        assert breaker.probes <= RULE.probes
        assert breaker.open_until - now <= RULE.longest_open_us

    ends_at = now + RULE.longest_open_us + RULE.probe_us + 10 * RULE.open_us
    while breaker.state != BreakerState.CLOSED:
        breaker, wait = admit(breaker, now, RULE)
        now += wait
        assert now <= ends_at
        if wait == 0:
            breaker = record(breaker, now, RULE, successes=1, failures=0, reason="")
