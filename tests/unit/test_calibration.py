"""Calibration: stated confidence against outcomes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.calibration import ERROR_LIMIT, LEAST_OUTCOMES, Outcome, calibrate

OUTCOMES = st.lists(st.builds(Outcome, st.floats(0, 1), st.booleans()), max_size=80)


def repeated(confidence: float, *, right: int, wrong: int) -> list[Outcome]:
    return [Outcome(confidence, is_right=True)] * right + [Outcome(confidence, is_right=False)] * wrong


def test_the_error_is_the_distance_of_saying_and_being_right() -> None:
    found = calibrate(repeated(0.95, right=15, wrong=10) + repeated(0.55, right=15, wrong=10))

    assert found.count == 50
    assert found.error == pytest.approx((0.35 * 25 + 0.05 * 25) / 50)
    assert [(bucket.low, bucket.count, bucket.observed) for bucket in found.buckets if bucket.count] == [
        (0.5, 25, 0.6),
        (0.9, 25, 0.6),
    ]


def test_too_few_outcomes_measure_nothing_and_lift_nothing() -> None:
    found = calibrate(repeated(0.9, right=0, wrong=LEAST_OUTCOMES - 1))

    assert (found.error, found.is_off, found.threshold(0.9)) == (None, False, 0.9)


def test_an_error_over_the_limit_lifts_the_threshold_up_to_one() -> None:
    slightly = calibrate(repeated(0.8, right=13, wrong=7))
    badly = calibrate(repeated(0.8, right=0, wrong=20))

    assert slightly.error == pytest.approx(0.15)
    assert slightly.threshold(0.8) == pytest.approx(0.95)
    assert badly.threshold(0.9) == 1.0


def test_within_the_limit_the_threshold_stays() -> None:
    assert calibrate(repeated(0.9, right=18, wrong=2)).threshold(0.9) == 0.9


@given(OUTCOMES, st.floats(0, 1))
def test_what_comes_out_are_rates(outcomes: list[Outcome], confidence: float) -> None:
    found = calibrate(outcomes)

    assert sum(bucket.count for bucket in found.buckets) == found.count == len(outcomes)
    assert found.error is None or 0 <= found.error <= 1
    assert 0 <= found.chance <= 1
    assert 0 <= found.calibrated(confidence) <= 1
    assert confidence <= found.threshold(confidence) <= 1
    assert found.is_off == (found.error is not None and found.error > ERROR_LIMIT)


@given(st.floats(0, 1), st.integers(0, 40), st.integers(0, 40))
def test_a_calibrated_confidence_lies_between_what_was_said_and_what_was_seen(
    confidence: float, right: int, wrong: int
) -> None:
    calibrated = calibrate(repeated(confidence, right=right, wrong=wrong)).calibrated(confidence)

    observed = right / (right + wrong) if right + wrong else confidence
    assert min(confidence, observed) - 1e-9 <= calibrated <= max(confidence, observed) + 1e-9


def test_with_more_outcomes_what_was_seen_counts_more() -> None:
    assert calibrate([]).calibrated(0.9) == pytest.approx(0.9)
    assert calibrate(repeated(0.9, right=0, wrong=10)).calibrated(0.9) == pytest.approx(0.45)
    assert calibrate(repeated(0.9, right=0, wrong=90)).calibrated(0.9) == pytest.approx(0.09)


def test_the_edges_of_the_buckets() -> None:
    found = calibrate([Outcome(edge / 10, is_right=True) for edge in range(11)])

    assert [bucket.count for bucket in found.buckets] == [1] * 9 + [2]


def test_what_chance_alone_shows_is_told() -> None:
    """A perfectly calibrated agent, drawn many times, errs on average by what `chance` says."""
    random, confidences = Random(3), [0.55, 0.65, 0.75, 0.85, 0.95] * 10
    drawn = [calibrate([Outcome(c, random.random() < c) for c in confidences]) for _ in range(1000)]

    average = sum(found.error or 0.0 for found in drawn) / len(drawn)
    assert average == pytest.approx(drawn[0].chance, rel=0.05)
