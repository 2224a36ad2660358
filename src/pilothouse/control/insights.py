"""Read models for people and metrics: how deep the queue is, how old its head, how runs and attempts ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilothouse.control import counters
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database, Row, Transaction

Series = tuple[str, str]
"""(agent, lane)"""


@dataclass(frozen=True, slots=True)
class QueueInsight:
    """One agent in one lane. `oldest_age_seconds` is how long the head of its queue has been due; 0 when none is.

    `ended` counts how runs have ended, by state; one that was redriven may end more than once.
    """

    agent: str
    lane: str
    runs: dict[str, int]
    attempts: dict[str, int]
    oldest_age_seconds: float
    ended: dict[str, int] = field(default_factory=dict)
    duration_buckets: dict[str, int] = field(default_factory=dict)
    duration_seconds_sum: float = 0.0


async def queue_insights(db: Database) -> list[QueueInsight]:
    """Per agent and lane, in their order; read from counters, so that its cost does not grow with history."""
    return await db.read(lambda tx: queues_of(tx, counters.read(tx)))


def queues_of(tx: Transaction, counted: Iterable[Row]) -> list[QueueInsight]:
    """The same of counters that were read already."""
    by_series: dict[Series, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for row in counted:
        by_series[row["agent"], row["lane"]][row["name"]][row["label"]] = row["value"]
    ages = _oldest_ages(tx, (series for series, named in by_series.items() if _has_queued(named)))
    return [_insight(series, named, ages.get(series, 0.0)) for series, named in sorted(by_series.items())]


def _has_queued(named: Mapping[str, Mapping[str, int]]) -> bool:
    return any(named["runs"].get(state, 0) > 0 for state in (RunState.QUEUED, RunState.WAITING))


def _insight(series: Series, named: Mapping[str, dict[str, int]], oldest_age_seconds: float) -> QueueInsight:
    agent, lane = series
    return QueueInsight(
        agent=agent,
        lane=lane,
        runs=named["runs"],
        attempts=named["attempts"],
        oldest_age_seconds=oldest_age_seconds,
        ended=named["runs_ended"],
        duration_buckets=named["run_seconds"],
        duration_seconds_sum=named["run_us"].get("", 0) / 1_000_000,
    )


def _oldest_ages(tx: Transaction, queues: Iterable[Series]) -> dict[Series, float]:
    """How long the head of each queue has been due, in seconds; those that nobody may take from are left out."""
    rows = tx.fetch_many("oldest_due", [{"agent": agent, "lane": lane} for agent, lane in queues])
    return {(row["agent"], row["lane"]): max(0, row["now"] - row["oldest"]) / 1_000_000 for row in rows}
