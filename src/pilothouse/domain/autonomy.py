"""Autonomy: how much an agent may do on its own, what earns it more, and what takes it away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pilothouse.domain.calibration import ERROR_LIMIT, Calibration
from pilothouse.domain.effects import Effect

ANY = "*"
"""Stands for every version, or every action."""

SUPERVISED_ACTIONS = 50
TARGET_RATE = 0.9
BOUND_CONFIDENCE = 0.95

RECENT = 10
REJECTIONS_THAT_DEMOTE = 2
"""Of the latest `RECENT` decided actions."""

LOW_SCORES_THAT_DEMOTE = 5
"""In a row."""

MODERATE_RISK = 2
"""From this tier on a reviewer is needed unless the agent is autonomous."""


class Level(StrEnum):
    """`supervised`: whatever changes the world asks. `assisted`: what policies ask for, and risk from tier 2 on.
    `autonomous`: only what policies ask for.
    """

    SUPERVISED = "supervised"
    ASSISTED = "assisted"
    AUTONOMOUS = "autonomous"


LEVELS = tuple(Level)
"""The strictest first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The level of an agent's version for an action (`ANY`: for all), since when, and from when on decisions count.

    `asks_outward`: what spends, publishes, writes to people or cannot be taken back asks too, and `least_confidence`
    what is less sure: stages of a stability plan say so.
    """

    level: Level
    fingerprint: str = ANY
    action: str = ANY
    since: int = 0
    counted_from: int = 0
    asks_outward: bool = False
    least_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What an agent is about to do, as far as its autonomy is concerned. `risk` is a tier of 0 to 4."""

    effect: Effect
    risk: int
    cost_microusd: int = 0
    platform: str | None = None
    confidence: float | None = None

    @property
    def is_outward(self) -> bool:
        return self.cost_microusd > 0 or self.platform is not None or self.effect == Effect.IRREVERSIBLE


@dataclass(frozen=True, slots=True)
class AutonomyFacts:
    """What the gate before an effect has to know of an agent's autonomy."""

    standing: Standing
    calibration: Calibration

    @property
    def level(self) -> Level:
        return self.standing.level

    def why_ask(self, act: Act) -> str | None:
        """Why a person has to be asked, whatever policies say; None where only they decide."""
        if not act.effect.changes_the_world or (self.level == Level.AUTONOMOUS and not self._is_on_trial):
            return None
        if self.level == Level.SUPERVISED:
            return "the agent is supervised: everything that changes the world asks"
        if self.level == Level.ASSISTED and act.risk >= MODERATE_RISK:
            return f"risk tier {act.risk} asks while the agent is assisted"
        return self._trial_reason(act)

    @property
    def _is_on_trial(self) -> bool:
        return self.standing.asks_outward or self.standing.least_confidence is not None

    def _trial_reason(self, act: Act) -> str | None:
        least = self.standing.least_confidence
        if self.standing.asks_outward and act.is_outward:
            return "its stability plan asks for what spends, publishes, writes to people or cannot be taken back"
        if least is None:
            return None
        if act.confidence is None:
            return f"its stability plan wants a stated confidence of {least:.2f} or more, and there is none"
        wanted, likely = self.calibration.threshold(least), self.calibration.calibrated(act.confidence)
        if likely >= wanted:
            return None
        return f"confidence {act.confidence:.2f} is worth {likely:.2f}, and its stability plan wants {wanted:.2f}"


def standing_of(rows: Sequence[Standing], default: Level) -> Standing:
    """What counts for one action of one version: the latest that is said of the action or of the whole version.

    Where nothing is said of them, what is said of the agent, or the default, whichever is stricter: so a new version
    of a governed agent starts supervised.
    """
    own = [row for row in rows if row.fingerprint != ANY]
    if own:
        return min(own, key=lambda row: (-row.since, LEVELS.index(row.level)))
    return min((*rows, Standing(default)), key=lambda row: (LEVELS.index(row.level), -row.counted_from))


def next_level(level: Level) -> Level:
    return LEVELS[min(LEVELS.index(level) + 1, len(LEVELS) - 1)]


def is_above(level: Level, other: Level) -> bool:
    return LEVELS.index(level) > LEVELS.index(other)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for more autonomy. `decided`: people's decisions, `approved`: those without a change, `recent`: the
    latest ten, the newest first. `calibration_error` is None where it is not measured, and then it is missing.
    `critical_incidents` are those that are open still, and those that were opened since the decisions count.
    """

    decided: int
    approved: int
    recent: tuple[str, ...]
    calibration_error: float | None
    critical_incidents: int

    @property
    def rate(self) -> float | None:
        return self.approved / self.decided if self.decided else None

    @property
    def bound(self) -> float:
        return lower_bound(self.approved, self.decided)

    def missing(self) -> list[str]:
        """What is still to be shown before a person may promote; empty where nothing is."""
        checks = (
            (
                self.decided >= SUPERVISED_ACTIONS,
                f"{self.decided} of {SUPERVISED_ACTIONS} supervised actions are decided",
            ),
            (
                not self.decided or self.bound > TARGET_RATE,
                f"the approval rate is {self.bound:.1%} or more ({self.approved} of {self.decided}, 95 % sure), "
                f"not over {TARGET_RATE:.0%}",
            ),
            (not demands_demotion(self.recent), _told_rejections(self.recent)),
            (
                self.calibration_error is not None and self.calibration_error < ERROR_LIMIT,
                "the calibration error is not measured: too few decided actions stated a confidence"
                if self.calibration_error is None
                else f"the calibration error is {self.calibration_error:.1%}, not under {ERROR_LIMIT:.0%}",
            ),
            (
                not self.critical_incidents,
                f"{self.critical_incidents} critical incidents are open, or came since its decisions count",
            ),
        )
        return [told for is_met, told in checks if not is_met]


def demands_demotion(recent: Sequence[str]) -> bool:
    """Whether the latest decisions, the newest first, take autonomy away."""
    return list(recent[:RECENT]).count("reject") >= REJECTIONS_THAT_DEMOTE


def _told_rejections(recent: Sequence[str]) -> str:
    looked_at = recent[:RECENT]
    return f"{list(looked_at).count('reject')} of the latest {len(looked_at)} decided actions were rejected"


def is_declining(scores: Sequence[float], baseline: float) -> bool:
    """Whether the latest five scores, which are in order of time, all lie below the baseline."""
    latest = scores[-LOW_SCORES_THAT_DEMOTE:]
    return len(latest) == LOW_SCORES_THAT_DEMOTE and all(score < baseline for score in latest)


def lower_bound(successes: int, trials: int, *, confidence: float = BOUND_CONFIDENCE) -> float:
    """The exact one-sided lower confidence bound on a rate of which `successes` of `trials` were seen.

    It is the rate at which as many successes or more have the probability `1 - confidence`; 0 without a success. The
    confidence holds for one look. Who looks after each of 400 decisions and promotes at the first bound over 0.9 lets
    an agent of rate 0.85 through in 0.7 % of cases, one of 0.9 in 19 %; both are computed exactly in the tests.
    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934. Raises ValueError for counts that cannot be.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials cannot be")
    if successes == 0:
        return 0.0
    if successes == trials:
        return float((1 - confidence) ** (1 / trials))
    low, high = 0.0, successes / trials
    for _ in range(60):  # halves to below the precision of a float
        middle = (low + high) / 2
        if incomplete_beta(successes, trials - successes + 1, middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for positive `a`, `b` and x in [0, 1].

    With whole numbers it is the probability of `a` or more successes in `a + b - 1` trials of rate x.
    Source: the continued fraction of NIST's Digital Library of Mathematical Functions, 8.17.22, by Lentz's method.
    """
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _continued_fraction(a, b, x) / a


def _continued_fraction(a: float, b: float, x: float) -> float:
    tiny, enough = 1e-300, 1e-15
    c, d = 1.0, 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _off_zero(1.0 + term * d, tiny)
            c = _off_zero(1.0 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1.0) < enough:
            break
    return value


def _off_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
