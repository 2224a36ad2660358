"""What users test their agents with: a platform on a temporary database, whose clock stands still until it is moved."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilothouse.app import App
from pilothouse.clock import FrozenClock, SystemClock
from pilothouse.control import attempts, cancels, runs, schedules, signals, workers
from pilothouse.control.runs import Request, Submitter
from pilothouse.control.timeline import timeline
from pilothouse.control.views import run_view
from pilothouse.domain.lanes import Slots
from pilothouse.engine.isolation import check_isolated
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate
from pilothouse.telemetry.events import Emitter

LEASE_US = 60_000_000


class TestPlatform:
    """Runs an App's agents on a temporary SQLite file, or on the database of `url`.

    Use it as `async with TestPlatform(app) as platform`. Time stands still; `advance` moves it, so that a sleep of an
    hour takes none. `is_frozen=False` lets the clock run.
    """

    __test__ = False

    def __init__(self, app: App, *, url: str | None = None, is_frozen: bool = True, slots: Slots | None = None) -> None:
        check_isolated(app.agents)
        self.app = app
        self._folder = tempfile.TemporaryDirectory(prefix="pilothouse-test-")
        self.clock = FrozenClock(SystemClock().now_us()) if is_frozen else SystemClock()
        chosen = url or f"sqlite:///{Path(self._folder.name) / 'test.db'}"
        self.db = open_database(chosen, clock=self.clock)
        self.submitter = Submitter(self.db)
        self._slots = slots or Slots()
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.db.start)
        await asyncio.to_thread(migrate, self.db)
        await self.db.transaction(self.app.register_schedules)
        self._start_worker()
        await self._until_registered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        await self._working
        await self.submitter.close()
        await asyncio.to_thread(self.db.close)
        self._folder.cleanup()

    async def submit(self, agent: str, input: Any = None, **options: Any) -> str:
        """Submits a run and returns its id. `options` are those of `App.submit`, with `available_at` in microseconds.

        Raises NotFound and InvalidInput as `App.submit` does.
        """
        request = Request(agent, {} if input is None else input, principal="test", **options)
        return (await self.submitter.submit(request)).id

    async def run_until_idle(self, *, timeout_seconds: float = 30.0) -> None:
        """Returns when nothing runs and nothing is due; raises TimeoutError if that takes too long in real time."""
        async with asyncio.timeout(timeout_seconds):
            while await self.db.read(lambda tx: tx.fetch_one("busy_run")) is not None:
                self._raise_if_broken()
                await asyncio.sleep(0.002)

    async def run(self, agent: str, input: Any = None, **options: Any) -> Any:
        """Submits a run, waits until everything is idle, and returns the run's output.

        Raises AssertionError where it did not succeed, with its error.
        """
        run_id = await self.submit(agent, input, **options)
        await self.run_until_idle()
        run = await self.get(run_id)
        assert run["state"] == "succeeded", f"run {run_id} is {run['state']}: {run['error']}"
        return run["output"]

    async def get(self, run_id: str) -> dict[str, Any]:
        """The run as the API shows it."""
        return run_view(await runs.get_run(self.db, run_id))

    async def timeline(self, run_id: str) -> dict[str, Any]:
        """The run with its attempts, steps, signals, logs, children and audit."""
        return await timeline(self.db, run_id)

    async def signal(self, run_id: str, name: str, payload: Any = None) -> bool:
        return await signals.send_signal(self.db, run_id, name, payload, principal="test")

    async def cancel(self, run_id: str) -> None:
        await cancels.cancel_run(self.db, run_id, principal="test", reason="cancelled by a test")

    async def advance(self, *, seconds: float) -> None:
        """Moves the frozen clock and fires the schedules that became due; live workers renew their lease meanwhile."""
        if not isinstance(self.clock, FrozenClock):
            raise TypeError("only a frozen clock can be moved: TestPlatform(app, is_frozen=True)")
        self.clock.advance(seconds=seconds)
        await self.db.transaction(lambda tx: workers.renew(tx, self._worker.id, lease_us=LEASE_US))
        await self.db.transaction(lambda tx: schedules.fire_due(tx, principal="test"))
        self.db.notify("clock")

    async def crash_worker(self) -> None:
        """Ends the worker's lease as if its machine had died: its attempts are lost, another worker takes over."""
        lost = self._worker.id
        await self.db.transaction(lambda tx: _expire(tx, lost))

    def _start_worker(self) -> None:
        options = WorkerOptions(
            app=self.app.name,
            slots=self._slots,
            terms=LeaseTerms(lease_us=LEASE_US, renew_seconds=0.02),
            poll_seconds=0.02,
            drain_seconds=0.0,
            attempt_timeout_seconds=300.0,
        )
        self._worker = Worker(self.db, self.app.agents, options, Emitter())
        self._working = asyncio.create_task(self._keep_working(options))

    async def _keep_working(self, options: WorkerOptions) -> None:
        while not await self._worker.run(self._stop) and not self._stop.is_set():
            self._worker = Worker(self.db, self.app.agents, options, Emitter())

    async def _until_registered(self) -> None:
        wanted = self._worker.id
        while await self.db.read(lambda tx: tx.fetch_one("worker_by_id", id=wanted)) is None:
            self._raise_if_broken()
            await asyncio.sleep(0.001)

    def _raise_if_broken(self) -> None:
        if self._working.done():
            self._working.result()
            raise RuntimeError("the worker of the test platform has stopped")


def _expire(tx: Any, worker_id: str) -> None:
    tx.execute("expire_worker", id=worker_id)
    attempts.reap_workers(tx, principal="test")
