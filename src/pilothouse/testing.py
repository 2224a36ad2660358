"""What users test their agents with: a platform on a temporary database, whose clock stands still until it is moved."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilothouse.app import App
from pilothouse.clock import FrozenClock, SystemClock
from pilothouse.config import Settings
from pilothouse.control import approvals, asking, attempts, cancels, limits, runs, schedules, signals, workers
from pilothouse.control.approvals import Filter, Said
from pilothouse.control.breakers import Breakers
from pilothouse.control.limits import RunLimits
from pilothouse.control.policies import Policies, Trust
from pilothouse.control.runaways import Runaways
from pilothouse.control.runs import Request, Submitter
from pilothouse.control.switchboard import Switches
from pilothouse.control.timeline import timeline
from pilothouse.control.views import run_view
from pilothouse.domain.approvals import Choice, Decider
from pilothouse.domain.lanes import Slots
from pilothouse.engine.attempt import Surroundings
from pilothouse.engine.isolation import check_isolated
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.secrets import EnvironmentSecrets
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.llm.script import Question, Reply, Responder, parse_script
from pilothouse.platform import make_gateway
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate
from pilothouse.telemetry.events import Emitter

LEASE_US = 60_000_000
STAND_IN = "stand-in"


class ScriptedModel:
    """A model that says what it is told to: a list of entries as in a script's YAML, the first that fits answers.

    `ScriptedModel([{"say": "Hello"}])`, `{"when": {"contains": "refund"}, "json": {…}}`, `{"call": {"tool": …}}`,
    `{"fault": "rate_limited", "times": 1}`. `asked` holds the questions so far. Raises ConfigError for a bad entry.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._script = parse_script([dict(entry) for entry in entries])
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> Reply:
        self.asked.append(question)
        return self._script(question)


class TestPlatform:
    """Runs an App's agents on a temporary SQLite file, or on the database of `url`.

    Use it as `async with TestPlatform(app) as platform`. Time stands still; `advance` moves it, so that a sleep of an
    hour takes none. `is_frozen=False` lets the clock run. `model` answers every question to a model: a `ScriptedModel`,
    or a function that gets a `Question`. Other `settings` are those of pilothouse.toml, such as `routes`.
    """

    __test__ = False

    def __init__(
        self,
        app: App,
        *,
        url: str | None = None,
        is_frozen: bool = True,
        slots: Slots | None = None,
        model: Responder | None = None,
        **settings: Any,
    ) -> None:
        check_isolated(app.agents)
        self.app = app
        self._folder = tempfile.TemporaryDirectory(prefix="pilothouse-test-")
        self.clock = FrozenClock(SystemClock().now_us()) if is_frozen else SystemClock()
        self._file = None if url else Path(self._folder.name) / "test.db"
        self.db = open_database(url or f"sqlite:///{self._file}", clock=self.clock)
        self.submitter = Submitter(self.db)
        self._slots = slots or Slots()
        offline = {} if model is None else {"offline_model": f"offline:{STAND_IN}"}
        chosen_settings = Settings(**{**offline, **settings})
        responders = {} if model is None else {STAND_IN: model}
        self.gateway = make_gateway(self.db, chosen_settings, Emitter(), responders)
        secrets = EnvironmentSecrets(chosen_settings.secrets)
        self._settings = chosen_settings
        fingerprints = {name: agent.version.fingerprint for name, agent in app.agents.items()}
        trust = Trust(fingerprints, chosen_settings.new_agent_level)
        self._around = Surroundings(
            self.gateway,
            secrets,
            Breakers(self.db),
            run_limits=RunLimits(self.db),
            policies=Policies(self.db, chosen_settings.rulebook(app.policies), trust, chosen_settings.calendar),
            switches=Switches(self.db),
            runaways=Runaways(self.db, chosen_settings.runaway_rule),
        )
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._file is not None:
            await asyncio.to_thread(write_empty_database, self._file)
        await asyncio.to_thread(self.db.start)
        await asyncio.to_thread(migrate, self.db)
        await self.db.transaction(self.app.register_schedules)
        await self.db.transaction(lambda tx: limits.adopt(tx, self._settings.limits, principal="settings"))
        await self.db.transaction(self.app.register_limits)
        self._start_worker()
        await self._until_registered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        await self._working
        await self.submitter.close()
        await self.app.close_tools()
        if self.gateway is not None:
            await self.gateway.close()
        await asyncio.to_thread(self.db.close)
        self._folder.cleanup()

    async def submit(self, agent: str, input: Any = None, **options: Any) -> str:
        """Submits a run and returns its id. `options` are those of `App.submit`, with `available_at` in microseconds.

        Raises NotFound and InvalidInput as `App.submit` does.
        """
        request = Request(agent, {} if input is None else input, principal="test", **options)
        return (await self.submitter.submit(request)).id

    async def run_until_idle(self, *, timeout_seconds: float = 60.0) -> None:
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

    async def approvals(self, run_id: str | None = None, *, state: str | None = "pending") -> list[dict[str, Any]]:
        """What waits for a person, the oldest first; of one run, or in another `state` (None: in any)."""
        rows = await approvals.list_approvals(self.db, Filter(state=state, run_id=run_id), limit=1000)
        return [approvals.public(row) for row in reversed(rows)]

    async def decide(
        self,
        approval_id: str,
        choice: Choice,
        *,
        note: str = "",
        arguments: Mapping[str, Any] | None = None,
        by: str = "key:tester",
    ) -> dict[str, Any]:
        """Decides as the person `by`: "approve" (maybe with edited arguments), "reject" or "revise" with a note."""
        said = Said(choice, note, arguments)
        return await approvals.decide(self.db, approval_id, said, Decider(by))

    async def cancel(self, run_id: str) -> None:
        await cancels.cancel_run(self.db, run_id, principal="test", reason="cancelled by a test")

    async def advance(self, *, seconds: float) -> None:
        """Moves the frozen clock and fires the schedules that became due; live workers renew their lease meanwhile."""
        if not isinstance(self.clock, FrozenClock):
            raise TypeError("only a frozen clock can be moved: TestPlatform(app, is_frozen=True)")
        self.clock.advance(seconds=seconds)
        await self.db.transaction(lambda tx: workers.renew(tx, self._worker.id, lease_us=LEASE_US))
        await self.db.transaction(lambda tx: schedules.fire_due(tx, principal="test"))
        await asking.pass_deadlines(self.db, principal="test")
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
            calendar=self._settings.calendar,
        )
        self._worker = Worker(self.db, self.app.agents, options, Emitter(), self._around)
        self._working = asyncio.create_task(self._keep_working(options))

    async def _keep_working(self, options: WorkerOptions) -> None:
        while not await self._worker.run(self._stop) and not self._stop.is_set():
            self._worker = Worker(self.db, self.app.agents, options, Emitter(), self._around)

    async def _until_registered(self) -> None:
        wanted = self._worker.id
        while await self.db.read(lambda tx: tx.fetch_one("worker_by_id", id=wanted)) is None:
            self._raise_if_broken()
            await asyncio.sleep(0.001)

    def _raise_if_broken(self) -> None:
        if self._working.done():
            self._working.result()
            raise RuntimeError("the worker of the test platform has stopped")


def write_empty_database(path: Path) -> None:
    """Makes `path` a SQLite database without any rows, as it is after `pilothouse db migrate`, but quicker."""
    path.write_bytes(_empty_database())


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as folder:
        path = Path(folder) / "empty.db"
        db = open_database(f"sqlite:///{path}?synchronous=normal")
        db.start()
        migrate(db)
        db.close()  # which moves the log into the file
        return path.read_bytes()


def _expire(tx: Any, worker_id: str) -> None:
    tx.execute("expire_worker", id=worker_id)
    attempts.reap_workers(tx, principal="test")
