"""The history of counters and gauges: which there are, and what rates follow from what was counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

CUMULATIVE = frozenset(
    {
        "attempts",
        "cost_microusd",
        "model_calls",
        "model_us",
        "routing",
        "run_us",
        "runs_asked",
        "runs_ended",
        "runs_failed",
        "tokens",
        "tool_calls",
        "tool_us",
    }
)
"""What only grows, per agent. A value that is less than the one before began anew: a restored backup, a new database.

Labels: `runs_ended` the state, `runs_failed` the category, `attempts` the outcome, `tokens` input or output,
`cost_microusd` model/MODEL or tool/TOOL, `model_calls` MODEL/OUTCOME, `tool_calls` TOOL/OUTCOME, `routing`
ROUTE/OUTCOME, `model_us` the model, `tool_us` the tool; none for `run_us` and `runs_asked`.
"""

GAUGES = frozenset({"queued", "running", "waiting", "oldest_age_us", "workers"})
"""What goes up and down. Labels: the lane; of `workers`, which are no agent's, their state."""

NAMES = CUMULATIVE | GAUGES


class SeriesKey(NamedTuple):
    """One line of a chart."""

    name: str
    agent: str
    label: str


class Point(NamedTuple):
    """How a series stood at an instant, in microseconds; None before it began."""

    at: int
    value: int | None


class Span(NamedTuple):
    """How a series stood at the beginning of a stretch of time and at its end; None where it was not there yet."""

    first: int | None
    last: int | None

    @property
    def increase(self) -> int:
        """By how much a cumulative series grew; 0 while nothing is known."""
        if self.first is None or self.last is None:
            return 0
        return _increase(self.first, self.last)


def rates(points: Sequence[Point]) -> list[float | None]:
    """How much per second a cumulative series grew between each point and the next: one less than there are points.

    None where one of both has no value. After a reset, what was counted since counts.
    """
    return [_rate(before, after) for before, after in pairwise(points)]


def _rate(before: Point, after: Point) -> float | None:
    if before.value is None or after.value is None or after.at <= before.at:
        return None
    return _increase(before.value, after.value) * 1_000_000 / (after.at - before.at)


def _increase(before: int, after: int) -> int:
    return after - before if after >= before else after
