"""Retention: runs that ended long ago leave the run log, a batch at a time; the audit is pruned in its own time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse.clock import first_id, isoformat
from pilothouse.control import audit, blobs, counters, history, model_answers, seals
from pilothouse.control.instants import now
from pilothouse.store.database import Database, Row, Transaction

BATCH = 500
BATCHES_PER_TURN = 20
"""A turn ends after so many batches: who else leads a chore must not wait for a large backlog."""


@dataclass(slots=True)
class Pruner:
    """Prunes runs, records of the audit and samples of the history that are older than so many microseconds; None keeps
    them for ever.

    Remembers how far it has looked.
    """

    db: Database
    keep_us: int | None
    keep_audit_us: int | None = None
    keep_history_us: int | None = None
    _after: str = ""

    async def prune(self) -> None:
        await self.db.transaction(model_answers.prune)
        if self.keep_us is not None:
            await self._prune_runs(self.keep_us)
        if self.keep_audit_us is not None:
            await self._prune_audit(self.keep_audit_us)
        if self.keep_history_us is not None:
            await history.thin(self.db, keep_us=self.keep_history_us)

    async def _prune_audit(self, keep_us: int) -> None:
        for _ in range(BATCHES_PER_TURN):
            if not await self.db.transaction(lambda tx: seals.prune_seals(tx, keep_us=keep_us)):
                return

    async def _prune_runs(self, keep_us: int) -> None:
        for _ in range(BATCHES_PER_TURN):
            pruned = await self.db.transaction(lambda tx: prune_batch(tx, keep_us=keep_us, after=self._after))
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
    delete_runs(tx, rows)
    for statement in ("prune_reservations", "prune_run_balances", "prune_run_limits"):
        tx.send_many(statement, [{"id": row["id"]} for row in rows])
    reason = f"{len(rows)} runs that had ended before {isoformat(before)}"
    audit.record(tx, [audit.entry("runs.pruned", "retention", "runs", principal="system:retention", reason=reason)])
    return [row["id"] for row in rows]


TABLES_OF_RUNS = {
    "checkpoints": "delete_checkpoints",
    "model_calls": "delete_model_calls",
    "tool_calls": "delete_tool_calls",
    "signals": "delete_signals",
    "effects": "delete_effects",
    "waits": "delete_waits",
    "run_logs": "prune_logs",
    "attempts": "prune_attempts",
    "runs": "prune_runs",
}
"""Tables whose rows leave with their run, each with the statement that takes those of some runs out."""


def delete_runs(tx: Transaction, rows: Sequence[Row]) -> None:
    """Takes runs that have ended out of the run log, with everything that is theirs alone."""
    ids = [{"id": row["id"]} for row in rows]
    _count(tx, rows, tx.fetch_many("attempts_by_outcome", ids))
    for statement in TABLES_OF_RUNS.values():
        tx.send_many(statement, ids)
    blobs.release(tx, [row["id"] for row in rows])


def _count(tx: Transaction, runs: Sequence[Row], attempts: Sequence[Row]) -> None:
    tally = counters.tally(tx)
    for row in runs:
        tally.prune(row)
    for row in attempts:
        tally.prune_attempts(row["agent"], row["lane"], row["state"], row["attempts"])
