"""A simulated process: a worker and the chores, until it is stopped or crashes; another takes its place."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random
from typing import Any, Protocol
from unittest.mock import patch

from pilothouse.app import App
from pilothouse.control.retention import Pruner
from pilothouse.control.schedules import fire_due
from pilothouse.control.seals import Sealer
from pilothouse.domain.lanes import Lane, Slots
from pilothouse.engine import worker as worker_module
from pilothouse.engine.janitor import Janitor
from pilothouse.engine.lease import LeaseKeeper, LeaseTerms
from pilothouse.engine.scheduler import Chore, Scheduler
from pilothouse.engine.worker import WorkerOptions, keep_working
from pilothouse.errors import StoreError
from pilothouse.store.database import Database
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter
from tests.simulation.connection import Network, SimulatedDatabase

LEASE_SECONDS = 10.0
CHORE_SECONDS = 2.0
KEEP_US = 120 * 1_000_000
"""Runs that ended so long ago are pruned, so that pruning happens in every longer world."""

current: ContextVar[SimulatedProcess] = ContextVar("current")


class Chronicle(Protocol):
    """Where processes write what happens."""

    def note(self, who: str, what: str) -> None: ...


class TaskKeeper(LeaseKeeper):
    """The lease, renewed by a task instead of a thread."""

    _task: asyncio.Task[None]

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._beat())

    def stop(self) -> None:
        super().stop()
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._terms.renew_seconds)
            try:
                state = await self._db.transaction(self.renew)
            except StoreError:
                continue
            if not self.take_note(state):
                return


def with_tasks_for_threads() -> Any:
    """Workers keep their lease by a task while this lasts."""
    return patch.object(worker_module, "LeaseKeeper", TaskKeeper)


class SimulatedProcess:
    """One life of a process. After `crash` nothing of it runs any more, and none of its calls is answered."""

    def __init__(self, name: str, network: Network, app: App, chronicle: Chronicle, chance: Random) -> None:
        self.name = name
        self.is_dead = False
        self.faults_found: list[str] = []
        self._chronicle = chronicle
        self._stop = asyncio.Event()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        dialect = chance.choice(["sqlite", "postgres"])  # as many cycles in flight as on either
        self._network = network
        self._db: Database = SimulatedDatabase(network, self, dialect=dialect)
        self._app = app
        self._chance = chance

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._bury)

    def crash(self) -> None:
        if not self.is_dead:
            self._chronicle.note(self.name, "CRASH")
            self.is_dead = True
            for task in tuple(self._tasks):
                task.cancel()

    def stop(self) -> None:
        self._chronicle.note(self.name, "stop")
        self._stop.set()

    async def live(self) -> None:
        """Until it is stopped or has crashed."""
        current.set(self)
        loop = asyncio.get_running_loop()
        lives = [loop.create_task(self._work()), loop.create_task(self._do_chores())]
        await asyncio.wait(lives)
        self.is_dead = True
        for task in lives:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _bury(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if self.is_dead and not task.cancelled():
            task.exception()

    async def _work(self) -> None:
        options = WorkerOptions(
            app=self._app.name,
            slots=Slots({Lane.CRITICAL: 1, Lane.NORMAL: 2, Lane.LOW: 1}, shared=self._chance.choice([0, 1, 20])),
            terms=LeaseTerms(lease_us=int(LEASE_SECONDS * 1_000_000), renew_seconds=LEASE_SECONDS / 4),
            poll_seconds=1.0,
            drain_seconds=2.0,
            attempt_timeout_seconds=60.0,
        )
        await keep_working(self._db, self._app.agents, options, Emitter([self._see]), self._stop)

    async def _do_chores(self) -> None:
        emitter = Emitter([self._see])
        chores = [
            Janitor(self._db, emitter, lease_seconds=LEASE_SECONDS).chore(CHORE_SECONDS),
            Chore("schedules", CHORE_SECONDS, self._fire),
            Chore("seal", CHORE_SECONDS, Sealer(self._db).seal),
            Chore("retention", 10 * CHORE_SECONDS, self._prune),
        ]
        await Scheduler(self._db, chores, emitter).run(self._stop)

    async def _prune(self) -> None:
        """Not while users may submit again what they have no news of: real retention outlasts their patience."""
        if not self._network.unanswered:
            await Pruner(self._db, KEEP_US).prune()

    async def _fire(self) -> None:
        await self._db.transaction(lambda tx: fire_due(tx, principal="system:scheduler"))

    def _see(self, event: Event) -> None:
        if self.is_dead:
            return
        self._chronicle.note(self.name, str(event))
        if event.name in ("worker.fault", "chore.failed") and "simulated" not in str(event):
            self.faults_found.append(str(event))
