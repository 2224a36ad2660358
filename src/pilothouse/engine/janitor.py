"""The janitor: ends the leases of workers that vanished, so that their runs go on elsewhere."""

from __future__ import annotations

from pilothouse.control import attempts, runs
from pilothouse.control.attempts import AttemptKey
from pilothouse.engine.scheduler import Chore
from pilothouse.store.database import Database, Transaction
from pilothouse.telemetry.events import AttemptsReaped, Emitter

RUNS_NAMED = 10


class Janitor:
    """Reaps expired workers. After an outage it waits one lease first: no worker could renew its own meanwhile.

    A database that took half a lease to answer counts as one that was away: on SQLite another process may hold the
    write lock for a while, and when it lets go the janitor may come before the workers.
    """

    def __init__(self, db: Database, emitter: Emitter, *, lease_seconds: float) -> None:
        self._db = db
        self._emitter = emitter
        self._lease_seconds = lease_seconds
        self._quiet_until = 0.0

    def chore(self, interval_seconds: float) -> Chore:
        return Chore("janitor", interval_seconds, self.reap, self._wait_one_lease, slow_seconds=self._lease_seconds / 2)

    async def reap(self) -> None:
        asked = self._db.clock.monotonic()
        if asked < self._quiet_until:
            return
        reaped = await self._db.transaction(lambda tx: self._reap(tx, asked))
        if reaped:
            named = ", ".join(run_id for run_id, _ in reaped[:RUNS_NAMED])
            self._emitter.emit(AttemptsReaped(len(reaped), named))
            self._db.notify(runs.WAKE_RUNS)

    def _reap(self, tx: Transaction, asked: float) -> list[AttemptKey]:
        if self._db.clock.monotonic() - asked >= self._lease_seconds / 2:
            self._wait_one_lease()
            return []
        return attempts.reap_workers(tx, principal="system:janitor")

    def _wait_one_lease(self) -> None:
        self._quiet_until = self._db.clock.monotonic() + self._lease_seconds
