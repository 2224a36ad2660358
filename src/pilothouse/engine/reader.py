"""What an attempt reads of the database: its journal, signals, and how children ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pilothouse.control import asking, blobs
from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.runs import AttemptOutcome
from pilothouse.engine.patience import patiently
from pilothouse.store.database import Database, Row, Transaction


class Past(NamedTuple):
    """What earlier attempts have left. `lines` of their logs will come again; they have worked for `worked_us`.

    The last one ended at `left_at` as `left_as`.
    """

    checkpoints: list[Row]
    lines: int
    worked_us: int = 0
    left_as: str = ""
    left_at: int = 0


class Reader(Protocol):
    """Where an attempt's reads go. Each waits for a database that is away."""

    async def journal(self, claim: ClaimedRun) -> Past:
        """What earlier attempts have left."""

    async def signal(self, run_id: str, name: str) -> Row | None: ...

    async def children(self, ids: Sequence[str]) -> list[Row]: ...

    async def approval(self, run_id: str, approval_id: str) -> Row | None:
        """An approval that this run has asked for."""

    async def memory(self, run_id: str, name: str) -> Row | None:
        """What the run's agent remembers under a name for the run's tenant."""


class DatabaseReader:
    """Reads from the worker's own database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def journal(self, claim: ClaimedRun) -> Past:
        return await patiently(lambda: self._db.read(lambda tx: _read_journal(tx, claim)))

    async def signal(self, run_id: str, name: str) -> Row | None:
        return await patiently(
            lambda: self._db.read(lambda tx: tx.fetch_one("signal_by_name", run_id=run_id, name=name))
        )

    async def memory(self, run_id: str, name: str) -> Row | None:
        return await patiently(
            lambda: self._db.read(lambda tx: tx.fetch_one("memory_by_name", run_id=run_id, name=name))
        )

    async def approval(self, run_id: str, approval_id: str) -> Row | None:
        return await patiently(lambda: self._db.read(lambda tx: asking.answered(tx, run_id, approval_id)))

    async def children(self, ids: Sequence[str]) -> list[Row]:
        rows = [{"id": id} for id in ids]
        return await patiently(lambda: self._db.read(lambda tx: _ended(tx, rows)))


def _read_journal(tx: Transaction, claim: ClaimedRun) -> Past:
    before = tx.fetch_one("resume_point", run_id=claim.run_id, number=claim.attempt - 1)
    was_suspended = before is not None and before["state"] == AttemptOutcome.SUSPENDED
    lines = before["lines"] if before and was_suspended else 0
    checkpoints = blobs.unpack(tx, tx.fetch_all("checkpoints_of_run", run_id=claim.run_id), "result")
    if before is None:
        return Past(checkpoints, lines)
    return Past(checkpoints, lines, int(before["worked_us"]), before["state"], before["finished_at"] or 0)


def _ended(tx: Transaction, ids: Sequence[Row]) -> list[Row]:
    return blobs.unpack(tx, tx.fetch_many("child_states", ids), "output")
