"""Anomalies: whether an agent has changed, judged by its own history, with a false-alarm rate that is known.

An agent's runs are gathered into blocks. Each block gets a score: how far it is from all blocks before it, in a scale
that does not depend on how many runs there are in either. So scores stay comparable when the load rises and falls. The
rank of a score among all scores before it is a conformal p-value: as long as nothing changes, no rank is likelier than
another. Each p-value pays a bet that gains where blocks rank high, and the bets make up a Shiryaev-Roberts statistic:
the evidence. While nothing changes, the evidence reaches A within m blocks with a probability of at most m / A, and on
average no sooner than after A blocks.

Scores of means are exchangeable for certain where single figures are normal; for others nearly, which tests measure.

Sources: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain: conformal test martingales
for change-point detection", COPA 2021; Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential
change detection", 2022 (the bounds: theorem 2.4 there); Brown, Durbin and Evans, "Techniques for testing the constancy
of regression relationships over time", 1975 (recursive residuals); Lancaster, "The derivation and partition of
chi-squared in certain discrete distributions", 1949 (the same for counts).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

BLOCK_RUNS = 10
"""A block is complete with so many ended runs."""

BLOCK_SECONDS = 300
"""And not before so many seconds have passed, or a busy agent would have a false alarm every day."""

LEARNED_BLOCKS = 20
"""A tool mix is held against what came before it once there are so many blocks."""

MOST_SCORES = 2_000
"""A baseline that holds so many scores is begun anew."""

SUSPECTED_FROM = 100.0
"""With so much evidence a block is held against what came before it and not added to it, or a change would hide."""

CAP = 10.0
"""Evidence is kept below so many times the threshold, so that it can fall again."""


ROUNDING = 1e-9
RUNS, TOTAL, LAST = "runs", "total", "last"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is known of one agent in one measure. `scores` are those of its blocks, in their order; `seen` is what all
    `learned` blocks come to: how often each tool was called, or how many runs there were, their total, and the mean of
    the last block.
    """

    scores: tuple[float, ...] = ()
    evidence: float = 0.0
    seen: Mapping[str, float] = field(default_factory=dict)
    learned: int = 0


class Block(NamedTuple):
    """What the runs of a block came to: the total of a measure over them, or how often they have called each tool."""

    runs: int
    total: float = 0.0
    calls: Mapping[str, float] = {}


def conformal_p(score: float, before: Sequence[float]) -> float:
    """The share of scores, itself among them, that are as high or higher. Ties count against it, which is safe."""
    return (1 + sum(1 for each in before if each >= score)) / (1 + len(before))


def bet(p: float) -> float:
    """What a p-value pays: 1 on average where it is uniform (or larger), more where it is small."""
    return 0.5 / math.sqrt(p)


def observe(baseline: Baseline, score: float, *, threshold: float) -> Baseline:
    """The baseline after one more score; `threshold` is the evidence at which somebody will be told."""
    evidence = (baseline.evidence + 1.0) * bet(conformal_p(score, baseline.scores))
    return replace(baseline, scores=(*baseline.scores, score), evidence=min(evidence, CAP * threshold))


def observe_mean(baseline: Baseline, block: Block, *, threshold: float) -> Baseline:
    """One more block of a measure that is bad when it rises, such as cost per run."""
    before = _renewed(baseline)
    runs, total = before.seen.get(RUNS, 0.0), before.seen.get(TOTAL, 0.0)
    after = observe(before, excess(block, runs=runs, total=total), threshold=threshold) if runs else before
    if after.evidence >= SUSPECTED_FROM:
        return replace(after, seen={**before.seen, LAST: block.total / block.runs})
    seen = {RUNS: runs + block.runs, TOTAL: total + block.total, LAST: block.total / block.runs}
    return replace(after, seen=seen, learned=before.learned + 1)


def observe_mix(baseline: Baseline, block: Block, *, threshold: float) -> Baseline:
    """One more block of calls of tools, scored by how far it is from the mix of all blocks before it."""
    before = after = _renewed(baseline)
    if before.learned >= LEARNED_BLOCKS:
        after = observe(before, mix_distance(block.calls, before.seen), threshold=threshold)
    if after.evidence >= SUSPECTED_FROM:
        return after
    seen = Counter(before.seen)
    seen.update(block.calls)
    return replace(after, seen=dict(seen), learned=before.learned + 1)


def _renewed(baseline: Baseline) -> Baseline:
    return Baseline() if len(baseline.scores) >= MOST_SCORES else baseline


def excess(block: Block, *, runs: float, total: float) -> float:
    """How far the mean of a block is above that of the `runs` before it, times what makes its spread the same whatever
    the number of runs: a recursive residual. What differs by rounding alone is equal.
    """
    usual = total / runs
    above = block.total / block.runs - usual
    if abs(above) <= ROUNDING * abs(usual):
        return 0.0
    return above / math.sqrt(1.0 / block.runs + 1.0 / runs)


def mix_distance(calls: Mapping[str, float], seen: Mapping[str, float]) -> float:
    """The G statistic of the calls of a block and all calls before it: 0 where the shares are the same, more the less
    likely they are those of one mix.

    Source: Sokal and Rohlf, "Biometry", 1995, section 17.4.
    """
    total = sum(calls.values()) + sum(seen.values())
    both = Counter(calls)
    both.update(seen)
    return 2.0 * sum(
        count * math.log(count * total / (both[tool] * size))
        for sample, size in ((calls, sum(calls.values())), (seen, sum(seen.values())))
        for tool, count in sample.items()
        if count > 0
    )
