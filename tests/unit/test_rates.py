"""Rate limits: what is let through keeps to the limit in every window, and no more than that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.rates import RateLimit, admit, parse_rate_limits

LIMIT = RateLimit("GET", "*", 5, 10.0)


@given(st.lists(st.floats(0, 8), min_size=1, max_size=60))
def test_no_window_sees_more_than_a_burst_and_the_rate(gaps: list[float]) -> None:
    due, now, passed = 0.0, 1_000.0, []
    for gap in gaps:
        now += gap
        due, wait = admit(LIMIT, due, now)
        if wait == 0.0:
            passed.append(now)

    for start in passed:
        for end in (moment for moment in passed if moment >= start):
            seen = sum(start <= moment <= end for moment in passed)
            assert seen <= LIMIT.count + (end - start) / LIMIT.interval_seconds + 1e-6


@given(st.lists(st.floats(0, 8), min_size=1, max_size=60))
def test_who_waits_as_long_as_told_is_let_through_and_not_before(gaps: list[float]) -> None:
    due, now = 0.0, 1_000.0
    for gap in gaps:
        now += gap
        due, wait = admit(LIMIT, due, now)
        if wait > 0.01:
            assert admit(LIMIT, due, now + wait + 1e-6)[1] == 0.0
            assert admit(LIMIT, due, now + wait - 0.005)[1] > 0.0


@given(st.integers(1, 200))
def test_an_even_stream_at_the_rate_is_never_refused(count: int) -> None:
    due = 0.0
    for number in range(count):
        due, wait = admit(LIMIT, due, 1_000.0 + number * LIMIT.interval_seconds)
        assert wait == 0.0


def test_limits_are_read_and_told() -> None:
    text = "POST /api/v1/runs=100/s, GET /api/v1/audit*=30/min, * *=5/h"

    limits = parse_rate_limits(text)

    assert ", ".join(map(str, limits)) == text
    assert [limit.covers("GET", "/api/v1/audit/7") for limit in limits] == [False, True, True]
    assert [limit.covers("POST", "/api/v1/runs") for limit in limits] == [True, False, True]
    assert not limits[0].covers("POST", "/api/v1/runs:batch")


@pytest.mark.parametrize("text", ["POST=1/s", "POST /x=0/s", "POST /x=1/day", "post /x=1/s", "POST /x 1/s"])
def test_what_is_no_limit_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not METHOD PATH=COUNT/UNIT"):
        parse_rate_limits(text)
