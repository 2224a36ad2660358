"""What rates follow from counted values, whatever happened meanwhile; and what can be read off calls and ends."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse import errors
from pilothouse.domain.failures import CATEGORIES, category_of
from pilothouse.domain.history import CUMULATIVE, GAUGES, Point, Span, rates
from pilothouse.domain.routing import routing_of

STEP_US = 15_000_000


def points(values: list[int | None]) -> list[Point]:
    return [Point(number * STEP_US, value) for number, value in enumerate(values)]


@given(st.lists(st.integers(0, 10**9), max_size=50))
def test_rates_of_a_series_that_only_grows_add_up_to_its_growth(steps: list[int]) -> None:
    values: list[int | None] = list(accumulate(steps))

    found = rates(points(values))

    assert [rate * 15 for rate in found if rate is not None] == pytest.approx(steps[1:])


@given(st.lists(st.integers(0, 10**9) | st.none(), max_size=50))
def test_no_rate_is_below_zero_and_none_is_made_up(values: list[int | None]) -> None:
    found = rates(points(values))

    assert len(found) == max(0, len(values) - 1)
    for rate, (before, after) in zip(found, pairwise(values), strict=True):
        if before is None or after is None:
            assert rate is None
        else:
            assert rate is not None
            assert 0 <= rate * 15 <= after + 1e-6


def test_after_a_reset_what_was_counted_since_counts() -> None:
    assert rates(points([100, 130, 30])) == [2.0, 2.0]
    assert Span(100, 30).increase == 30
    assert Span(100, 130).increase == 30
    assert Span(None, 30).increase == 0


def test_a_name_is_either_cumulative_or_a_gauge() -> None:
    assert not CUMULATIVE & GAUGES


class Call(NamedTuple):
    route: str
    model: str
    outcome: str


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ([Call("r", "a", "answered")], "primary"),
        ([Call("r", "a", "failed"), Call("r", "a", "answered")], "primary"),
        ([Call("r", "a", "failed"), Call("r", "b", "answered")], "fallback"),
        ([Call("r", "a", "skipped"), Call("r", "b", "failed")], "failed"),
        ([Call("r", "a", "skipped"), Call("small", "c", "answered")], "degraded"),
        ([Call("r", "a", "cached")], "cached"),
    ],
)
def test_the_calls_of_a_question_say_how_its_model_was_chosen(calls: list[Call], outcome: str) -> None:
    assert routing_of(calls) == ("r", outcome)


def test_every_error_that_has_a_category_exists() -> None:
    own = set(CATEGORIES) - {"TimeoutError"}
    assert own <= set(vars(errors))
    assert category_of("failed", "ZeroDivisionError") == category_of("failed", None) == "code"
    assert category_of("lost", "ZeroDivisionError") == "lost"
    assert category_of("fatal", "RunTimeout") == "timed_out"
