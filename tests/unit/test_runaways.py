"""When a run has run away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.runaways import LEAST_RUNS, is_repeated, velocity_limit


@pytest.mark.parametrize(
    ("times", "limit", "is_hit"),
    [(0, 3, False), (2, 3, False), (3, 3, True), (4, 3, False), (6, 3, True), (5, 0, False), (1, 1, True)],
)
def test_each_multiple_of_the_limit_is_one_too_many(times: int, limit: int, is_hit: bool) -> None:
    assert is_repeated(times, limit) == is_hit


def test_with_too_little_history_there_is_no_verdict() -> None:
    assert velocity_limit([10] * (LEAST_RUNS - 1), 3.0) is None
    assert velocity_limit([10] * LEAST_RUNS, 3.0) == 30
    assert velocity_limit([10] * LEAST_RUNS, 0.0) is None


def test_one_odd_run_of_many_does_not_raise_the_bar() -> None:
    assert velocity_limit([100] * 199 + [1_000_000], 2.0) == 200


@given(st.lists(st.integers(0, 10**9), min_size=LEAST_RUNS), st.floats(1.0, 10.0))
def test_nearly_every_earlier_run_was_within_the_limit(peaks: list[int], factor: float) -> None:
    limit = velocity_limit(peaks, factor)

    assert limit is not None
    assert sum(peak > limit for peak in peaks) <= len(peaks) * 0.01
