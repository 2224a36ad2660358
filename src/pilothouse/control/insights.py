"""Read models for people and metrics: how deep the queue is, how old its head, how runs and attempts ended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from pilothouse.control import counters
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database, Row, Transaction

Series = tuple[str, str]
"""(agent, lane)"""


@dataclass(frozen=True, slots=True)
class QueueInsight:
    """One agent in one lane. `oldest_age_seconds` is how long the head of its queue has been due; 0 when none is.

    `pruned` are runs that have ended and are not in the run log any more, by state.
    """

    agent: str
    lane: str
    runs: dict[str, int]
    attempts: dict[str, int]
    oldest_age_seconds: float
    pruned: dict[str, int] = field(default_factory=dict)
    duration_buckets: dict[str, int] = field(default_factory=dict)
    duration_seconds_sum: float = 0.0


async def queue_insights(db: Database) -> list[QueueInsight]:
    """Per agent and lane, in their order; read from counters, so that its cost does not grow with history."""
    return await db.read(_queue_insights)


def _queue_insights(tx: Transaction) -> list[QueueInsight]:
    by_series: dict[Series, list[Row]] = defaultdict(list)
    for row in counters.read(tx):
        by_series[row["agent"], row["lane"]].append(row)
    return [_insight(tx, agent, lane, rows) for (agent, lane), rows in sorted(by_series.items())]


def _insight(tx: Transaction, agent: str, lane: str, rows: list[Row]) -> QueueInsight:
    named: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        named[row["name"]][row["label"]] = row["value"]
    is_queued = named["runs"].get(RunState.QUEUED, 0) + named["runs"].get(RunState.WAITING, 0) > 0
    return QueueInsight(
        agent=agent,
        lane=lane,
        runs=named["runs"],
        attempts=named["attempts"],
        oldest_age_seconds=_oldest_age(tx, agent, lane) if is_queued else 0.0,
        pruned=named["pruned"],
        duration_buckets=named["run_seconds"],
        duration_seconds_sum=named["run_us"].get("", 0) / 1_000_000,
    )


def _oldest_age(tx: Transaction, agent: str, lane: str) -> float:
    row = tx.fetch_one("oldest_due", agent=agent, lane=lane)
    if row is None or row["oldest"] is None:
        return 0.0
    waited_us: int = row["now"] - row["oldest"]
    return max(0.0, waited_us / 1_000_000)
