"""Confidence calibration: what an agent says of its chances, held against what people decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BUCKETS = 10

LOOKED_AT = 50
"""Decided actions that count, the latest of an agent that stated a confidence."""

LEAST_OUTCOMES = 20
"""With fewer the error is not measured: chance alone would often pass the limit."""

ERROR_LIMIT = 0.10

PRIOR_WEIGHT = 10.0
"""How many outcomes the stated confidence is worth against the observed ones of its bucket."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One decided action: the confidence in [0, 1] that its agent stated, whether it was approved without a change."""

    confidence: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """Outcomes whose stated confidence lies from `low` up to `high`; `stated` is its mean. Empty: both rates are 0."""

    low: float
    high: float
    count: int
    right: int
    stated: float

    @property
    def observed(self) -> float:
        return self.right / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far stated confidence and outcomes lie apart. `error` is None where there are too few outcomes to tell.

    `chance` is the error that a perfectly calibrated agent would show on average with the same confidences.
    """

    buckets: tuple[Bucket, ...]
    count: int
    error: float | None
    chance: float

    @property
    def is_off(self) -> bool:
        return self.error is not None and self.error > ERROR_LIMIT

    def threshold(self, stated: float) -> float:
        """The confidence that lets an action go unasked: `stated`, lifted by the error where that is over its limit."""
        if self.error is None or not self.is_off:
            return stated
        return min(1.0, stated + self.error)

    def calibrated(self, confidence: float) -> float:
        """The rate at which actions of this stated confidence turn out right, in [0, 1].

        It is the observed rate of the bucket, shrunk toward the stated value as if that were ten outcomes more: the
        m-estimate, which is the mean of a beta distribution after the bucket's outcomes.
        Source: Cestnik, "Estimating probabilities: a crucial task in machine learning", ECAI 1990.
        """
        bucket = self.buckets[_place(confidence)]
        return (bucket.right + PRIOR_WEIGHT * confidence) / (bucket.count + PRIOR_WEIGHT)


def calibrate(outcomes: Sequence[Outcome]) -> Calibration:
    """The calibration that these outcomes show, in ten buckets of equal width.

    The error is the expected calibration error: the distance of stated mean and observed rate, averaged over the
    buckets by their counts. Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015. With few outcomes it is biased upward, so `chance` is told beside it.
    """
    sorted_in: list[list[Outcome]] = [[] for _ in range(BUCKETS)]
    for outcome in outcomes:
        sorted_in[_place(outcome.confidence)].append(outcome)
    buckets = tuple(_bucket(place, inside) for place, inside in enumerate(sorted_in))
    count = len(outcomes)
    is_measured = count >= LEAST_OUTCOMES
    error = sum(bucket.count * abs(bucket.observed - bucket.stated) for bucket in buckets) / count if count else 0.0
    chance = sum(_deviation(bucket.count, bucket.stated) for bucket in buckets) / count if count else 0.0
    return Calibration(buckets, count, error if is_measured else None, chance)


def _place(confidence: float) -> int:
    """The bucket of a confidence; 1.0 belongs to the last. Rounded, so that 0.7 is never taken for 0.6999…."""
    return max(0, min(BUCKETS - 1, math.floor(round(confidence * BUCKETS, 6))))


def _bucket(place: int, inside: Sequence[Outcome]) -> Bucket:
    stated = math.fsum(outcome.confidence for outcome in inside) / len(inside) if inside else 0.0
    right = sum(outcome.is_right for outcome in inside)
    return Bucket(place / BUCKETS, (place + 1) / BUCKETS, len(inside), right, min(1.0, stated))


def _deviation(count: int, rate: float) -> float:
    """The mean distance of a binomial count from `count * rate`.

    Source: De Moivre's formula; Diaconis and Zabell, "Closed form summation for classical distributions", 1991.
    """
    if count == 0 or rate in (0.0, 1.0):
        return 0.0
    above = math.floor(count * rate) + 1
    return 2 * above * math.comb(count, above) * rate**above * (1 - rate) ** (count - above + 1)
