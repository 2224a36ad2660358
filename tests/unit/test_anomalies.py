"""Anomalies: that false alarms are as rare as promised while nothing changes (A/A), and that real changes are seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.alert_rules import FALSE_ALARM_BLOCKS
from pilothouse.domain.anomalies import (
    BLOCK_RUNS,
    CAP,
    LEARNED_BLOCKS,
    MOST_SCORES,
    Baseline,
    Block,
    bet,
    conformal_p,
    excess,
    mix_distance,
    observe_mean,
    observe_mix,
)

MANY_RUNS = 60
SHAPES = ("normal", "heavy", "constant", "mostly zero")


def draw(random: Random, shape: str, *, by: float = 1.0) -> float:
    """One run's cost or latency, `by` times as large as usual."""
    match shape:
        case "normal":
            return by * random.gauss(100.0, 15.0)
        case "heavy":
            return by * random.lognormvariate(0.0, 1.5)
        case "mostly zero":
            return by * (random.expovariate(1.0) if random.random() < 0.2 else 0.0)
        case _:
            return by


def block(random: Random, shape: str, *, by: float = 1.0, runs: int = BLOCK_RUNS) -> Block:
    return Block(runs, sum(draw(random, shape, by=by) for _ in range(runs)))


def calls(random: Random, shares: dict[str, float], *, runs: int = BLOCK_RUNS) -> Block:
    """The calls of tools of a block: each run makes one to five."""
    count = sum(random.randint(1, 5) for _ in range(runs))
    return Block(runs, calls=dict(Counter(random.choices(list(shares), list(shares.values()), k=count))))


def steady(number: int) -> int:
    return BLOCK_RUNS


def falling(number: int) -> int:
    return MANY_RUNS if number < 120 else BLOCK_RUNS


def rising(number: int) -> int:
    return BLOCK_RUNS if number < 120 else MANY_RUNS


def by_day(number: int) -> int:
    return MANY_RUNS if number // 30 % 2 else BLOCK_RUNS


LOADS: tuple[Callable[[int], int], ...] = (steady, falling, rising, by_day)
"""How many runs the blocks have, by their number."""


def test_a_bet_is_fair_where_nothing_is_known() -> None:
    steps = 100_000

    mean = sum(bet((step + 0.5) / steps) for step in range(steps)) / steps

    assert mean == pytest.approx(1.0, abs=2e-3)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_bet_on_the_rank_of_exchangeable_scores_gains_nothing(scores: list[float], random: Random) -> None:
    """Exactly: whichever of the scores comes last, each as likely as the others, the bets pay 1 on average at most."""
    random.shuffle(scores)

    paid = [bet(conformal_p(scores[i], scores[:i] + scores[i + 1 :])) for i in range(len(scores))]

    assert sum(paid) / len(paid) <= 1.0 + 1e-9


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_false_alarms_are_as_rare_as_promised(shape: str, load: Callable[[int], int]) -> None:
    """A/A: of 40 agents that never change, whatever their load, a share of m / A is ever told of in m blocks at most;
    here 200 / 1000.
    """
    random, threshold, blocks, agents = Random(7), 1_000.0, 200, 40
    told = 0
    for _ in range(agents):
        baseline, highest = Baseline(), 0.0
        for number in range(blocks):
            baseline = observe_mean(baseline, block(random, shape, runs=load(number)), threshold=threshold)
            highest = max(highest, baseline.evidence)
        told += highest >= threshold

    assert told / agents <= blocks / threshold


@pytest.mark.parametrize("load", LOADS)
def test_false_alarms_of_tool_mixes_are_as_rare_as_promised(load: Callable[[int], int]) -> None:
    """The same of tool mixes."""
    random, threshold, blocks, agents = Random(13), 1_000.0, 200, 20
    shares = {"read": 6.0, "write": 3.0, "send": 0.3}
    told = 0
    for _ in range(agents):
        baseline, highest = Baseline(), 0.0
        for number in range(blocks):
            baseline = observe_mix(baseline, calls(random, shares, runs=load(number)), threshold=threshold)
            highest = max(highest, baseline.evidence)
        told += highest >= threshold

    assert told / agents <= blocks / threshold


@pytest.mark.parametrize(
    ("shape", "by", "history", "within"),
    [("normal", 1.3, 60, 12), ("heavy", 3.0, 150, 40), ("normal", 1.1, 150, 60)],
)
def test_a_real_change_is_seen(shape: str, by: float, history: int, within: int) -> None:
    """After a usual history, nine of ten agents that have changed are told of within so many blocks."""
    random, threshold, agents = Random(11), FALSE_ALARM_BLOCKS, 40
    seen = 0
    for _ in range(agents):
        baseline = Baseline()
        for _ in range(history):
            baseline = observe_mean(baseline, block(random, shape), threshold=threshold)
        for _ in range(within):
            baseline = observe_mean(baseline, block(random, shape, by=by), threshold=threshold)
            if baseline.evidence >= threshold:
                seen += 1
                break

    assert seen / agents >= 0.9


def test_a_changed_tool_mix_is_seen() -> None:
    random, threshold, agents = Random(3), FALSE_ALARM_BLOCKS, 20
    before, after = {"read": 6.0, "write": 3.0}, {"read": 3.0, "write": 3.0, "delete": 3.0}
    seen = 0
    for _ in range(agents):
        baseline = Baseline()
        for _ in range(LEARNED_BLOCKS + 100):
            baseline = observe_mix(baseline, calls(random, before), threshold=threshold)
        for _ in range(15):
            baseline = observe_mix(baseline, calls(random, after), threshold=threshold)
        seen += baseline.evidence >= threshold

    assert seen / agents >= 0.9


def test_what_stays_new_becomes_usual() -> None:
    random, threshold = Random(5), 5_000.0
    baseline = Baseline()
    for _ in range(50):
        baseline = observe_mean(baseline, block(random, "normal"), threshold=threshold)
    for _ in range(30):
        baseline = observe_mean(baseline, block(random, "normal", by=2.0), threshold=threshold)
    assert threshold <= baseline.evidence <= CAP * threshold
    for _ in range(400):
        baseline = observe_mean(baseline, block(random, "normal", by=2.0), threshold=threshold)

    assert baseline.evidence < 0.9 * threshold


def test_a_baseline_never_grows_without_end() -> None:
    baseline = Baseline(tuple(float(number) for number in range(MOST_SCORES)), 3.0, {"runs": 10.0, "total": 10.0}, 7)

    after = observe_mean(baseline, Block(10, 20.0), threshold=10.0)

    assert (after.scores, after.evidence, after.learned) == ((), 0.0, 1)
    assert observe_mix(baseline, Block(10, calls={"read": 3.0}), threshold=10.0).seen == {"read": 3.0}


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.01, 1e6))
def test_what_differs_by_rounding_alone_is_equal(runs: int, before: int, figure: float) -> None:
    assert excess(Block(runs, sum([figure] * runs)), runs=before, total=sum([figure] * before)) == 0.0


def test_more_runs_say_more_of_the_same_excess() -> None:
    few, many = (excess(Block(runs, runs * 2.0), runs=1_000, total=1_000.0) for runs in (10, 1_000))

    assert few == pytest.approx(math.sqrt(1_000 / 101))
    assert many == pytest.approx(math.sqrt(500))


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50).map(float), min_size=1))
def test_the_distance_of_a_mix_from_one_like_it_is_nothing_and_of_a_new_tool_large(mix: dict[str, float]) -> None:
    same = {tool: count / 10 for tool, count in mix.items()}

    assert mix_distance(same, mix) == pytest.approx(0.0, abs=1e-6)
    assert mix_distance({"new": 30.0}, mix) > 1.0
    assert mix_distance({}, mix) == 0.0
