"""The janitor: ends the leases of workers that vanished, so that their runs go on elsewhere."""

from __future__ import annotations

from pilothouse.control import attempts, runs
from pilothouse.engine.scheduler import Chore
from pilothouse.store.database import Database
from pilothouse.telemetry.events import AttemptsReaped, Emitter

RUNS_NAMED = 10


class Janitor:
    """Reaps expired workers. After an outage it waits one lease first: no worker could renew its own meanwhile."""

    def __init__(self, db: Database, emitter: Emitter, *, lease_seconds: float) -> None:
        self._db = db
        self._emitter = emitter
        self._lease_seconds = lease_seconds
        self._quiet_until = 0.0

    def chore(self, interval_seconds: float) -> Chore:
        return Chore("janitor", interval_seconds, self.reap, self._wait_one_lease)

    async def reap(self) -> None:
        if self._db.clock.monotonic() < self._quiet_until:
            return
        reaped = await self._db.transaction(lambda tx: attempts.reap_workers(tx, principal="system:janitor"))
        if reaped:
            named = ", ".join(run_id for run_id, _ in reaped[:RUNS_NAMED])
            self._emitter.emit(AttemptsReaped(len(reaped), named))
            self._db.notify(runs.WAKE_RUNS)

    def _wait_one_lease(self) -> None:
        self._quiet_until = self._db.clock.monotonic() + self._lease_seconds
