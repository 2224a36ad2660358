"""The rules of runs: every ending leads where the table allows, and what may be spent is never exceeded."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse import payloads
from pilothouse.domain.retries import Backoff, RetryPolicy
from pilothouse.domain.runs import TERMINAL, TRANSITIONS, Ending, Limits, RunState, Spent, next_state, outcome_of

ENDINGS: tuple[Ending, ...] = get_args(Ending)
JITTER = st.floats(0, 1, exclude_max=True)
LIMITS = st.builds(Limits, st.integers(1, 5), st.integers(1, 5), st.just(Backoff()))


@given(st.sampled_from(ENDINGS), LIMITS, st.integers(0, 6), st.integers(0, 6), JITTER)
def test_every_ending_leads_from_running_to_an_allowed_state(
    ending: Ending, limits: Limits, failures: int, losses: int, jitter: float
) -> None:
    following = next_state(ending, Spent(failures, losses), limits, delay_seconds=None, jitter=jitter)

    assert following.state in TRANSITIONS[RunState.RUNNING]
    assert (following.delay_seconds is not None) == (following.state == RunState.QUEUED)
    assert outcome_of(ending)


@given(LIMITS, JITTER)
def test_failing_for_ever_ends_after_the_attempts_allowed(limits: Limits, jitter: float) -> None:
    states = [
        next_state("failed", Spent(failures, 0), limits, delay_seconds=None, jitter=jitter).state
        for failures in range(limits.max_attempts)
    ]

    assert states == [RunState.QUEUED] * (limits.max_attempts - 1) + [RunState.FAILED]


@given(LIMITS, JITTER)
def test_losing_workers_for_ever_ends_too_and_the_first_loss_costs_no_wait(limits: Limits, jitter: float) -> None:
    following = [
        next_state("lost", Spent(0, losses), limits, delay_seconds=None, jitter=jitter)
        for losses in range(limits.max_losses)
    ]

    assert following[-1].state == RunState.FAILED
    assert all(each.state == RunState.QUEUED for each in following[:-1])
    assert following[0].delay_seconds in (0.0, None)


def test_what_has_ended_stays_ended_but_for_a_redrive() -> None:
    assert {state: set(TRANSITIONS[state]) for state in TERMINAL} == {
        RunState.SUCCEEDED: set(),
        RunState.CANCELLED: set(),
        RunState.FAILED: {RunState.QUEUED},
    }


@given(st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.integers(1, 200), JITTER)
def test_back_off_grows_and_stays_within_its_limit(
    first: float, factor: float, limit: float, number: int, jitter: float
) -> None:
    backoff = Backoff(first, factor, limit)

    delay = backoff.delay_seconds(number, jitter)

    assert 0 <= delay <= limit
    assert backoff.delay_seconds(number + 1, 0.0) >= backoff.delay_seconds(number, 0.0)


def test_a_policy_tries_as_often_as_it_says_and_only_on_its_errors() -> None:
    policy = RetryPolicy(3, on=(OSError,), unless=(FileNotFoundError,))

    assert [policy.is_worth_another_try(OSError(), tries) for tries in (1, 2, 3)] == [True, True, False]
    assert not policy.is_worth_another_try(FileNotFoundError(), 1)
    assert not policy.is_worth_another_try(ValueError(), 1)
    with pytest.raises(ValueError, match="at least 1"):
        RetryPolicy(0)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_encoded_is_decoded_and_has_one_form(value: object) -> None:
    text = payloads.encode(value)

    assert payloads.decode(text) == value
    assert payloads.encode(payloads.decode(text)) == text


@given(st.lists(JSON, max_size=3), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_number_that_json_cannot_carry_is_refused_at_any_depth(values: list[object], number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        payloads.encode({"a": [*values, {"b": number}]})
