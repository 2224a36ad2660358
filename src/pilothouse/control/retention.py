"""Retention: runs that ended long ago are taken out of the run log, a batch at a time. Their audit stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse.clock import first_id, isoformat
from pilothouse.control import audit, blobs, counters
from pilothouse.control.instants import now
from pilothouse.store.database import Database, Row, Transaction

BATCH = 500
BATCHES_PER_TURN = 20
"""A turn ends after so many batches: who else leads a chore must not wait for a large backlog."""


@dataclass(slots=True)
class Pruner:
    """Prunes what is older than `keep_us`, in microseconds, and remembers how far it has looked."""

    db: Database
    keep_us: int
    _after: str = ""

    async def prune(self) -> None:
        for _ in range(BATCHES_PER_TURN):
            pruned = await self.db.transaction(lambda tx: prune_batch(tx, keep_us=self.keep_us, after=self._after))
            if len(pruned) < BATCH:
                self._after = ""  # what was kept this time may be ripe the next
                await self._sweep()
                return
            self._after = pruned[-1]

    async def _sweep(self) -> None:
        """Takes out what pruned runs alone had referred to."""
        for _ in range(BATCHES_PER_TURN):
            if await self.db.transaction(blobs.sweep) < blobs.SWEPT_AT_ONCE:
                return


def prune_batch(tx: Transaction, *, keep_us: int, after: str = "") -> list[str]:
    """Takes out the next runs behind the id `after` that ended more than `keep_us` ago; their ids."""
    before = now(tx) - keep_us
    rows = tx.fetch_all("prunable_runs", before=before, below=first_id(before), after=after, limit=BATCH)
    if not rows:
        return []
    ids = [{"id": row["id"]} for row in rows]
    _count(tx, rows, tx.fetch_many("attempts_by_outcome", ids))
    for statement in (
        "delete_checkpoints",
        "delete_signals",
        "delete_waits",
        "prune_logs",
        "prune_attempts",
        "prune_runs",
    ):
        tx.send_many(statement, ids)
    blobs.release(tx, [row["id"] for row in rows])
    reason = f"{len(rows)} runs that had ended before {isoformat(before)}"
    audit.record(tx, [audit.entry("runs.pruned", "retention", "runs", principal="system:retention", reason=reason)])
    return [row["id"] for row in rows]


def _count(tx: Transaction, runs: Sequence[Row], attempts: Sequence[Row]) -> None:
    tally = counters.tally(tx)
    for row in runs:
        tally.prune(row)
    for row in attempts:
        tally.prune_attempts(row["agent"], row["lane"], row["state"], row["attempts"])
