"""What an attempt reads of the database: its journal, signals, and how children ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pilothouse.control import blobs
from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.runs import AttemptOutcome
from pilothouse.engine.patience import patiently
from pilothouse.store.database import Database, Row, Transaction


class Reader(Protocol):
    """Where an attempt's reads go. Each waits for a database that is away."""

    async def journal(self, claim: ClaimedRun) -> tuple[list[Row], int]:
        """The checkpoints of earlier attempts, and how many log lines of theirs will come again."""

    async def signal(self, run_id: str, name: str) -> Row | None: ...

    async def children(self, ids: Sequence[str]) -> list[Row]: ...


class DatabaseReader:
    """Reads from the worker's own database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def journal(self, claim: ClaimedRun) -> tuple[list[Row], int]:
        return await patiently(lambda: self._db.read(lambda tx: _read_journal(tx, claim)))

    async def signal(self, run_id: str, name: str) -> Row | None:
        return await patiently(
            lambda: self._db.read(lambda tx: tx.fetch_one("signal_by_name", run_id=run_id, name=name))
        )

    async def children(self, ids: Sequence[str]) -> list[Row]:
        rows = [{"id": id} for id in ids]
        return await patiently(lambda: self._db.read(lambda tx: _ended(tx, rows)))


def _read_journal(tx: Transaction, claim: ClaimedRun) -> tuple[list[Row], int]:
    before = tx.fetch_one("resume_point", run_id=claim.run_id, number=claim.attempt - 1)
    was_suspended = before is not None and before["state"] == AttemptOutcome.SUSPENDED
    lines = before["lines"] if before and was_suspended else 0
    return blobs.unpack(tx, tx.fetch_all("checkpoints_of_run", run_id=claim.run_id), "result"), lines


def _ended(tx: Transaction, ids: Sequence[Row]) -> list[Row]:
    return blobs.unpack(tx, tx.fetch_many("child_states", ids), "output")
