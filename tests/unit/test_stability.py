"""The stability plan's rules: its stages, its criteria, and that no data is no pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.stability import (
    DAY_US,
    STAGES,
    Figures,
    PlanState,
    Service,
    Verdict,
    assess,
    conclude,
    longest_gap,
)

GOOD = Figures(
    critical_incidents=0,
    runaways=0,
    downtime_us=0,
    actions=12,
    untraced=0,
    broken_seals=0,
    scores=(0.9, 0.92),
    baseline=0.85,
    calibration_error=0.04,
    outcomes=50,
    memos=20,
    approved_memos=19,
)


def test_the_stages_fill_seven_days_without_a_gap() -> None:
    assert [(stage.first_day, stage.last_day) for stage in STAGES] == [(1, 2), (3, 4), (5, 6), (7, 7)]
    assert sum(stage.length_us(DAY_US) for stage in STAGES) == 7 * DAY_US
    assert [stage.cap(101) for stage in STAGES] == [50, 50, 50, 101]
    assert STAGES[0].cap(1) == 1


def test_every_criterion_met_passes_at_the_end_and_not_before() -> None:
    findings = assess(GOOD)

    assert {finding.verdict for finding in findings} == {Verdict.MET}
    assert len(findings) == 7
    assert conclude(findings, is_over=False) == PlanState.RUNNING
    assert conclude(findings, is_over=True) == PlanState.PASSED


GRAVE = [
    {"critical_incidents": 1},
    {"runaways": 1},
    {"downtime_us": 61_000_000},
    {"untraced": 1},
    {"broken_seals": 1},
    {"actions": 0, "broken_seals": 1},
]
OTHERS = [{"scores": (0.85,)}, {"calibration_error": 0.11}, {"approved_memos": 18}]
UNKNOWN = [
    {"critical_incidents": None},
    {"runaways": None},
    {"downtime_us": None},
    {"actions": 0},
    {"scores": ()},
    {"calibration_error": None},
    {"memos": 0, "approved_memos": 0},
]


@pytest.mark.parametrize("changes", GRAVE)
def test_a_grave_criterion_fails_the_plan_at_once(changes: dict[str, object]) -> None:
    findings = assess(replace(GOOD, **changes))  # type: ignore[arg-type]  # the test names the fields

    assert conclude(findings, is_over=False) == PlanState.FAILED


@pytest.mark.parametrize("changes", OTHERS)
def test_other_criteria_fail_it_at_its_end(changes: dict[str, object]) -> None:
    findings = assess(replace(GOOD, **changes))  # type: ignore[arg-type]  # the test names the fields

    assert conclude(findings, is_over=False) == PlanState.RUNNING
    assert conclude(findings, is_over=True) == PlanState.FAILED


@pytest.mark.parametrize("changes", UNKNOWN)
def test_what_was_not_measured_is_said_and_does_not_pass(changes: dict[str, object]) -> None:
    findings = assess(replace(GOOD, **changes))  # type: ignore[arg-type]  # the test names the fields

    assert [finding.verdict for finding in findings].count(Verdict.NOT_MEASURED) == 1
    assert conclude(findings, is_over=False) == PlanState.RUNNING
    assert conclude(findings, is_over=True) == PlanState.UNPROVEN


@given(st.integers(0, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_more_than_ninety_percent_of_the_memos_is_more_than_nine_of_ten(counts: tuple[int, int]) -> None:
    approved, decided = counts

    finding = assess(replace(GOOD, memos=decided, approved_memos=approved))[-1]

    assert (finding.verdict == Verdict.MET) == (10 * approved > 9 * decided)


# --- downtime ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("services", "gap"),
    [
        ([], None),
        ([Service(200, 300, was_lost=True)], None),
        ([Service(0, 100, was_lost=False)], 0),
        ([Service(20, 30, was_lost=False), Service(80, 100, was_lost=False)], 0),
        ([Service(0, 30, was_lost=True), Service(80, 100, was_lost=False)], 50),
        ([Service(0, 30, was_lost=True), Service(10, 90, was_lost=False), Service(95, 100, was_lost=False)], 0),
        ([Service(-50, 5, was_lost=True), Service(10, 30, was_lost=True)], 70),
        ([Service(0, 100, was_lost=False), Service(10, 20, was_lost=True)], 0),
    ],
)
def test_downtime_is_the_time_after_a_lost_worker_without_another(services: list[Service], gap: int | None) -> None:
    assert longest_gap(services, start=0, end=100) == gap


SPAN = st.tuples(st.integers(-20, 120), st.integers(0, 60), st.booleans()).map(
    lambda given: Service(given[0], given[0] + given[1], was_lost=given[2])
)


@given(st.lists(SPAN, max_size=6))
def test_a_gap_lies_within_the_window_and_another_worker_never_makes_it_longer(services: list[Service]) -> None:
    gap = longest_gap(services, start=0, end=100)

    assert gap is None or 0 <= gap <= 100
    assert longest_gap([*services, Service(0, 100, was_lost=False)], start=0, end=100) == 0
