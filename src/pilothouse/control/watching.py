"""What is new about one run, for those who watch it: its state, and what was recorded and logged since a place."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.control import runs
from pilothouse.store.database import Database, Row, Transaction

NEWS_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Place:
    """How far a watcher has seen: numbers of the run's last audit record and of its last log line."""

    seq: int = 0
    log_id: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """The run now, and what came after a place, oldest first. `has_more`: a bound cut it off, ask again at once."""

    run: Row
    records: list[Row]
    logs: list[Row]
    has_more: bool


async def news_of_run(db: Database, run_id: str, place: Place) -> News:
    """What is new since `place`, on one snapshot. Raises NotFound."""
    return await db.read(lambda tx: _news(tx, run_id, place))


def _news(tx: Transaction, run_id: str, place: Place) -> News:
    run = runs.run_in(tx, run_id)
    records = tx.fetch_all("audit_of_entity", entity_id=run_id, after=place.seq, limit=NEWS_LIMIT)
    logs = tx.fetch_all("logs_of_run", run_id=run_id, after=place.log_id, limit=NEWS_LIMIT)
    return News(run, records, logs, has_more=NEWS_LIMIT in (len(records), len(logs)))
