"""Autonomy's rules: which level counts, what earns more, how strong the evidence is."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from fractions import Fraction
from functools import cache
from math import comb
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.autonomy import (
    ANY,
    LEVELS,
    SUPERVISED_ACTIONS,
    TARGET_RATE,
    Act,
    AutonomyFacts,
    Evidence,
    Level,
    Standing,
    demands_demotion,
    incomplete_beta,
    is_above,
    is_declining,
    lower_bound,
    next_level,
    standing_of,
)
from pilothouse.domain.calibration import Outcome, calibrate
from pilothouse.domain.effects import Effect

NO_OUTCOMES = calibrate([])


def probability_of_at_least(successes: int, trials: int, rate: Fraction) -> Fraction:
    """Exactly, by the definition of the binomial distribution."""
    return sum(
        (comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(successes, trials + 1)), Fraction(0)
    )


# --- the bound ---------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_the_bound_is_where_what_was_seen_has_five_percent(counts: tuple[int, int]) -> None:
    successes, trials = counts

    bound = lower_bound(successes, trials)

    below, above = (Fraction(round(bound * 10**6) + step, 10**6) for step in (-1, 1))
    assert probability_of_at_least(successes, trials, below) < Fraction(5, 100)
    assert probability_of_at_least(successes, trials, above) > Fraction(5, 100)


@pytest.mark.parametrize(
    ("successes", "trials", "told"),
    [(50, 50, 0.9418), (49, 50, 0.9086), (48, 50, 0.8794), (9, 10, 0.6058), (0, 10, 0.0), (0, 0, 0.0)],
)
def test_the_bound_equals_the_known_figures(successes: int, trials: int, told: float) -> None:
    assert lower_bound(successes, trials) == pytest.approx(told, abs=1e-4)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_the_incomplete_beta_function_is_the_tail_of_the_binomial(a: int, b: int, per_mille: int) -> None:
    exact = float(probability_of_at_least(a, a + b - 1, Fraction(per_mille, 1000)))

    assert incomplete_beta(a, b, per_mille / 1000) == pytest.approx(exact, rel=1e-9, abs=1e-300)


@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bound_lies_below_the_rate_and_grows_with_the_evidence(counts: tuple[int, int]) -> None:
    successes, trials = counts
    bound = lower_bound(successes, trials)

    assert 0 <= bound < 1
    assert bound <= successes / trials if trials else bound == 0
    assert lower_bound(successes + 1, trials + 1) >= bound
    assert lower_bound(successes, trials + 1) <= bound


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes of 4 trials"):
        lower_bound(5, 4)


# --- how strong the evidence is ----------------------------------------------------------------


@cache
def least_approved(decided: int) -> int:
    """How many approvals are enough; the bound grows with them."""
    if decided < SUPERVISED_ACTIONS:
        return decided + 1
    return bisect_left(range(decided + 1), True, key=lambda k: lower_bound(k, decided) > TARGET_RATE)


def is_enough(approved: int, decided: int) -> bool:
    return approved >= least_approved(decided)


def chance_of_promotion(rate: float, decisions: int) -> float:
    """Exactly, for who looks after each decision and promotes as soon as it may be."""
    undecided, promoted = {0: 1.0}, 0.0
    for count in range(1, decisions + 1):
        after: defaultdict[int, float] = defaultdict(float)
        for approved, share in undecided.items():
            after[approved + 1] += share * rate
            after[approved] += share * (1 - rate)
        promoted += sum(after.pop(approved) for approved in list(after) if is_enough(approved, count))
        undecided = dict(after)
    return promoted


def test_an_agent_below_the_target_is_hardly_ever_promoted_however_often_somebody_looks() -> None:
    assert chance_of_promotion(0.85, 50) == pytest.approx(0.003, abs=0.001)
    assert chance_of_promotion(0.85, 400) == pytest.approx(0.007, abs=0.001)


def test_at_the_target_itself_one_look_errs_in_five_percent_and_many_looks_more_often() -> None:
    assert chance_of_promotion(0.9, 50) < 0.05
    assert chance_of_promotion(0.9, 400) == pytest.approx(0.19, abs=0.01)


def test_a_good_agent_gets_there() -> None:
    assert chance_of_promotion(0.99, 100) > 0.99


def test_in_a_simulation_an_agent_of_85_percent_is_promoted_in_under_five_percent_of_cases() -> None:
    random, promoted, cases = Random(7), 0, 1000
    for _ in range(cases):
        decisions: list[str] = []
        for _ in range(150):
            decisions.append("approve" if random.random() < 0.85 else random.choice(("edit", "reject", "revise")))
            if len(decisions) >= SUPERVISED_ACTIONS and is_enough(decisions.count("approve"), len(decisions)):
                evidence = Evidence(
                    len(decisions), decisions.count("approve"), tuple(reversed(decisions[-10:])), 0.0, 0
                )
                if not evidence.missing():
                    promoted += 1
                    break

    assert promoted / cases < 0.05


# --- what is missing ---------------------------------------------------------------------------


def evidence(**changes: object) -> Evidence:
    values: dict[str, object] = {
        "decided": 50,
        "approved": 50,
        "recent": ("approve",) * 10,
        "calibration_error": 0.05,
        "critical_incidents": 0,
    }
    return Evidence(**(values | changes))  # type: ignore[arg-type]  # the test names the fields


def test_nothing_is_missing_from_full_evidence() -> None:
    assert evidence().missing() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decided": 0, "approved": 0, "recent": ()}, "0 of 50 supervised actions"),
        ({"decided": 49, "approved": 49}, "49 of 50 supervised actions"),
        ({"approved": 48}, "48 of 50"),
        ({"decided": 400, "approved": 390, "recent": ("reject", "reject")}, "2 of the latest 2 decided actions"),
        ({"calibration_error": None}, "not measured"),
        ({"calibration_error": 0.10}, "10.0%, not under 10%"),
        ({"critical_incidents": 1}, "1 critical incidents"),
    ],
)
def test_each_missing_piece_is_told(changes: dict[str, object], told: str) -> None:
    missing = evidence(**changes).missing()

    assert len(missing) == 1
    assert told in missing[0]


@given(st.lists(st.sampled_from(["approve", "edit", "reject", "revise"]), max_size=30))
def test_two_rejections_of_the_latest_ten_demote(recent: list[str]) -> None:
    assert demands_demotion(recent) == (sum(decision == "reject" for decision in recent[:10]) >= 2)


def test_five_low_scores_in_a_row_are_a_decline() -> None:
    assert is_declining([0.9, 0.7, 0.7, 0.7, 0.7, 0.7], 0.8)
    assert not is_declining([0.7, 0.7, 0.7, 0.7], 0.8)
    assert not is_declining([0.7, 0.7, 0.8, 0.7, 0.7, 0.7], 0.8)


# --- which level counts ------------------------------------------------------------------------

LEVEL = st.sampled_from(LEVELS)


def test_levels_go_up_one_by_one() -> None:
    assert [next_level(level) for level in LEVELS] == [Level.ASSISTED, Level.AUTONOMOUS, Level.AUTONOMOUS]
    assert is_above(Level.AUTONOMOUS, Level.SUPERVISED)
    assert not is_above(Level.ASSISTED, Level.ASSISTED)


def test_the_latest_word_on_the_action_or_its_version_counts() -> None:
    whole = Standing(Level.AUTONOMOUS, "v", ANY, since=5)

    assert standing_of([Standing(Level.SUPERVISED, "v", "send", since=9), whole], Level.ASSISTED).level == "supervised"
    assert standing_of([Standing(Level.SUPERVISED, "v", "send", since=2), whole], Level.ASSISTED).level == "autonomous"


@given(st.lists(st.builds(Standing, LEVEL, st.just("v"), st.sampled_from(["a", ANY]), st.integers(0, 3)), min_size=1))
def test_of_two_words_at_the_same_instant_the_stricter_counts(rows: list[Standing]) -> None:
    chosen = standing_of(rows, Level.AUTONOMOUS)

    latest = [row for row in rows if row.since == max(row.since for row in rows)]
    assert chosen.level == min((row.level for row in latest), key=LEVELS.index)


@given(LEVEL, LEVEL)
def test_a_new_version_has_the_stricter_of_its_agents_level_and_the_default(agent: Level, default: Level) -> None:
    assert standing_of([Standing(agent)], default).level == min(agent, default, key=LEVELS.index)
    assert standing_of([], default).level == default


# --- who asks ----------------------------------------------------------------------------------


def facts(level: Level, **trial: object) -> AutonomyFacts:
    return AutonomyFacts(Standing(level, **trial), NO_OUTCOMES)  # type: ignore[arg-type]  # the test names the fields


WRITE = Act(Effect.WRITE, risk=0)


@given(LEVEL, st.sampled_from([Effect.PURE, Effect.READ]), st.integers(0, 4))
def test_what_changes_nothing_never_asks(level: Level, effect: Effect, risk: int) -> None:
    assert facts(level, asks_outward=True, least_confidence=0.9).why_ask(Act(effect, risk)) is None


@given(st.sampled_from([Effect.IDEMPOTENT, Effect.WRITE, Effect.IRREVERSIBLE]), st.integers(0, 4))
def test_each_level_asks_less_than_the_one_before(effect: Effect, risk: int) -> None:
    act = Act(effect, risk)

    assert facts(Level.SUPERVISED).why_ask(act)
    assert bool(facts(Level.ASSISTED).why_ask(act)) == (risk >= 2)
    assert facts(Level.AUTONOMOUS).why_ask(act) is None


@pytest.mark.parametrize(
    ("act", "asks"),
    [
        (WRITE, False),
        (Act(Effect.WRITE, 0, cost_microusd=1), True),
        (Act(Effect.WRITE, 0, platform="email"), True),
        (Act(Effect.IRREVERSIBLE, 0), True),
    ],
)
def test_a_stage_may_ask_for_what_goes_outside(act: Act, asks: bool) -> None:
    assert bool(facts(Level.ASSISTED, asks_outward=True).why_ask(act)) == asks


def test_a_stage_may_want_confidence() -> None:
    unproved = facts(Level.AUTONOMOUS, least_confidence=0.9)
    poor = AutonomyFacts(unproved.standing, calibrate([Outcome(0.95, is_right=False)] * 50))

    assert "there is none" in (unproved.why_ask(WRITE) or "")
    assert unproved.why_ask(Act(Effect.WRITE, 0, confidence=0.9)) is None
    assert unproved.why_ask(Act(Effect.WRITE, 0, confidence=0.85))
    assert "worth 0.16, and its stability plan wants 1.00" in (
        poor.why_ask(Act(Effect.WRITE, 0, confidence=0.95)) or ""
    )
