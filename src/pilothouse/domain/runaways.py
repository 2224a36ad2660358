"""Runaways: when a run that goes round in circles, or burns tokens much faster than its like, is to be halted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

LEAST_RUNS = 20
"""With the history of fewer runs nobody can say what is too fast."""

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class RunawayRule:
    """After how many equal calls, with the same result, and after how many equal errors a run is halted; and how many
    times the 99th percentile of its version it may use in a minute. 0: never.
    """

    same_calls: int = 25
    same_errors: int = 10
    velocity: float = 3.0


class Excess(NamedTuple):
    """Tokens of this minute, and what would still have been usual."""

    tokens: int
    limit: int


def is_repeated(times: int, limit: int) -> bool:
    """Whether this time is one too many. A person who lets the run go on lets it do so for as many more times."""
    return limit > 0 and times > 0 and times % limit == 0


def velocity_limit(peaks: Sequence[int], factor: float) -> int | None:
    """How many tokens a run may use in a minute. `peaks` are those of the busiest minute of each earlier run.

    None: no verdict, for want of history or because nobody wants one.
    """
    if factor <= 0 or len(peaks) < LEAST_RUNS:
        return None
    rank = math.ceil(0.99 * len(peaks))
    return math.ceil(sorted(peaks)[rank - 1] * factor)
