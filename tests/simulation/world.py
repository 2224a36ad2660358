"""A world: processes, users and faults around one database, all drawn from one seed; what must hold is held to it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from pilothouse import payloads
from pilothouse.control import checks, schedules
from pilothouse.control.schedules import ScheduleCard
from pilothouse.domain.runs import TERMINAL
from pilothouse.domain.schedules import CatchUp, Overlap
from pilothouse.engine.context import Context
from pilothouse.store.database import Row, Transaction
from tests.simulation.agents import STAGE, TOKENS
from tests.simulation.connection import Network
from tests.simulation.faults import Faults
from tests.simulation.loop import Stuck, VirtualLoop, repeatable
from tests.simulation.process import SimulatedProcess, current, with_tasks_for_threads
from tests.simulation.store import Store, WorldClock
from tests.simulation.users import Users

TROUBLE_SECONDS = 40.0
"""How long faults are injected; then everything must come to its end."""

PATIENCE_SECONDS = 900.0
PROCESSES = 3
LINES_SHOWN = 80


class Violation(AssertionError):
    """Something that must hold did not."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one world. `digest` is the same for the same seed; `problem` is empty where everything held."""

    seed: int
    problem: str
    digest: str
    lines: list[str]
    runs: int
    attempts: int
    commits: int
    crashes: int


class World:
    """One seed's world. Everything by chance is drawn from `chance`, in the order in which it happens."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._chance = Random(seed)
        self._loop = VirtualLoop(self._tick)
        self._loop.set_task_factory(_adopting)  # type: ignore[arg-type]  # its type knows only Task itself
        self._clock = WorldClock(self._loop)
        self._faults = Faults(self._chance)
        self._store = Store(self._clock, self._after_commit, self._violated)
        self._network = Network(self._store, self._clock, self._faults, self._chance)
        self._app = STAGE.enter(self._act, self._chance)
        self._users = Users(self._network, self._chance)
        self._alive: dict[str, SimulatedProcess] = {}
        self._states: dict[str, str] = {}
        self._lines: list[str] = []
        self._problem, self._is_ending = "", False
        self._executions = self._commits = self._crashes = 0
        self._ticks, self._crash_ticks = 0, self._draw_crash_ticks()

    def run(self) -> Report:
        logging.getLogger("asyncio").addFilter(self._hear)
        try:
            with repeatable(self._loop, self.seed), with_tasks_for_threads():
                self._live()
                return self._report()
        finally:
            logging.getLogger("asyncio").removeFilter(self._hear)
            self._loop.close()
            self._store.close()

    # --- what happens --------------------------------------------------------------------------

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._story())
        except (Violation, Stuck) as error:
            if str(error) != self._problem:
                self._violated(str(error))
        except Exception as error:  # noqa: BLE001 - whatever comes out of the engine is a finding
            self._violated(f"{type(error).__name__}: {error}")
        finally:
            self._end_all()
            asyncio.set_event_loop(None)

    async def _story(self) -> None:
        self._store.commit(self._register_schedule)
        homes = [self._loop.create_task(self._keep_alive(f"p{number}")) for number in range(PROCESSES)]
        visit = self._loop.create_task(self._users.visit(runs=self._chance.randint(4, 16), seconds=TROUBLE_SECONDS))
        troubles = [self._loop.create_task(trouble) for trouble in self._troubles()]
        await _until(self._loop.time() + TROUBLE_SECONDS, homes)
        for trouble in troubles:
            trouble.cancel()
        self._heal()
        await asyncio.wait([visit], timeout=PATIENCE_SECONDS)
        if not visit.done():
            raise Violation("the users were not answered although everything works again")
        visit.result()
        await self._until_over(homes)
        self._check_end()

    def _register_schedule(self, tx: Transaction) -> None:
        card = ScheduleCard("ticking", "tick", "* * * * *", catch_up=CatchUp.ALL, overlap=Overlap.ALLOW)
        schedules.register(tx, "simulation", [card], principal="world")

    async def _keep_alive(self, name: str) -> None:
        """One process after the other, as a supervisor would."""
        while True:
            process = self._alive[name] = SimulatedProcess(name, self._network, self._app, self, self._chance)
            life = self._loop.create_task(process.live())
            await life
            self._crashes += 1
            if process.faults_found:
                raise Violation(process.faults_found[0])
            await asyncio.sleep(self._chance.choice([0.1, 3.0, 15.0]))

    def _troubles(self) -> list[Coroutine[Any, Any, None]]:
        faults = self._faults
        return [
            trouble()
            for is_had, trouble in (
                (faults.has_jumps, self._jump),
                (faults.has_outages, self._go_down),
                (faults.has_stops, self._stop_some),
            )
            if is_had
        ]

    async def _jump(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(2, 20))
            seconds = self._chance.choice([-30.0, -1.0, 1.0, 30.0, 90.0, 3600.0])
            self.note("world", f"clock jumps by {seconds:g} s")
            self._clock.jump(seconds)

    async def _go_down(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(3, 20))
            self.note("world", "database down")
            self._network.is_down = True
            await asyncio.sleep(self._chance.choice([0.5, 4.0, 14.0]))
            self.note("world", "database up")
            self._network.is_down = False

    async def _stop_some(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(2, 15))
            self._alive[f"p{self._chance.randrange(PROCESSES)}"].stop()

    def _draw_crash_ticks(self) -> set[int]:
        if not self._faults.has_crashes:
            return set()
        return {self._chance.randrange(6_000) for _ in range(self._chance.randint(1, 12))}

    def _tick(self) -> None:
        """Between two turns of the loop: so a crash can come at any await. What was found ends the world."""
        if self._problem and not self._is_ending:
            raise Violation(self._problem)
        self._ticks += 1
        if self._ticks in self._crash_ticks:
            process = self._alive.get(f"p{self._chance.randrange(PROCESSES)}")
            if process is not None:
                process.crash()

    def _heal(self) -> None:
        self.note("world", "everything works from here on")
        self._faults.heal()
        self._crash_ticks = set()
        self._network.is_down = False

    async def _until_over(self, homes: list[asyncio.Task[None]]) -> None:
        deadline = self._loop.time() + PATIENCE_SECONDS
        while open_runs := self._store.open_runs():
            if self._loop.time() > deadline:
                raise Violation(f"{len(open_runs)} runs do not end, among them {open_runs[0]}")
            await _until(self._loop.time() + 1.0, homes)

    def _end_all(self) -> None:
        """Nobody's last words count any more."""
        self._is_ending = True
        for process in self._alive.values():
            process.is_dead = True
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    # --- what must hold --------------------------------------------------------------------------

    async def _act(self, ctx: Context, name: str) -> str:
        """A step's work: executed, it must not have been finished by an earlier attempt."""
        self._executions += 1
        token = f"{ctx.run_id}/{name}/{self._executions}"
        done = self._store.read(lambda tx: _finished(tx, ctx.run_id, name))
        if done is not None and done < ctx.attempt:
            self._violated(f"attempt {ctx.attempt} executes step {name} of {ctx.run_id}, finished by attempt {done}")
        self.note(current.get().name, f"executes {token} in attempt {ctx.attempt}")
        await asyncio.sleep(self._chance.choice([0.0, 0.001, 0.05, 2.0]))
        if self._chance.random() < 0.03:
            raise RuntimeError("the step fails")
        return token

    def _after_commit(self, changed: set[str]) -> None:
        self._commits += 1
        for run_id in sorted(changed):
            self._states[run_id] = self._store.read(lambda tx, id=run_id: _state(tx, id))  # type: ignore[misc]
            self.note("store", f"{run_id} {self._states[run_id]}")
        if changed and self._commits % 16 == 0:
            self._prove()

    def _prove(self) -> None:
        """The invariants of `db check`, on everything. A lease may have run out: the janitor comes when it can."""
        for verdict in self._store.read(lambda tx: checks.verdicts(tx, checks.ANY_GRACE_US)):
            if not verdict.holds:
                self._violated(f"{verdict.name}: {verdict.found[0]}")

    def _check_end(self) -> None:
        self._prove()
        for run_id in self._users.accepted.values():
            row = self._store.read(lambda tx, id=run_id: tx.fetch_one("run_by_id", id=id))  # type: ignore[misc]
            if row is None and self._states.get(run_id) not in TERMINAL:
                raise Violation(f"run {run_id} was accepted and is gone")
            if row is not None:
                self._check_output(row)

    def _check_output(self, row: Row) -> None:
        """What the handler got from its steps is what their checkpoints say."""
        if row["state"] != "succeeded" or row["agent"] not in TOKENS:
            return
        stored = self._store.read(lambda tx: tx.fetch_all("checkpoints_of_run", run_id=row["id"]))
        results = {c["result"] for c in stored if c["kind"] == "step"}
        tokens = {payloads.encode(token) for token in payloads.decode(row["output"])}
        if not tokens <= results:
            raise Violation(f"run {row['id']} has the output {row['output']}, its steps say {sorted(results)}")

    def _violated(self, problem: str) -> None:
        self.note("world", problem)
        self._problem = self._problem or problem

    def _hear(self, record: logging.LogRecord) -> bool:
        """What asyncio complains about, such as an exception that nobody looked at."""
        self._violated(f"asyncio: {record.getMessage()}")
        return False

    # --- the chronicle --------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        self._lines.append(f"{self._loop.time():10.4f} {who:6} {what}")

    def _report(self) -> Report:
        digest = hashlib.sha256("\n".join(self._lines).encode()).hexdigest()[:16]
        counts = self._store.read(lambda tx: tx.fetch_one("check_sizes")) or {}
        return Report(
            self.seed,
            self._problem,
            digest,
            self._lines,
            counts["runs"],
            counts["attempts"],
            self._commits,
            self._crashes,
        )


def _adopting(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """A task belongs to the process in which it was made, and dies with it."""
    task = asyncio.Task(coro, loop=loop, **options)
    process = current.get(None)
    if process is not None:
        process.adopt(task)
    return task


async def _until(moment: float, homes: list[asyncio.Task[None]]) -> None:
    """Until a moment of the loop's time; a supervisor ends before only with an error."""
    done, _ = await asyncio.wait(homes, timeout=moment - asyncio.get_running_loop().time())
    for home in done:
        home.result()


def _state(tx: Transaction, run_id: str) -> str:
    row = tx.fetch_one("run_by_id", id=run_id)
    return "gone" if row is None else str(row["state"])


def _finished(tx: Transaction, run_id: str, name: str) -> int | None:
    """The number of the attempt that finished a step, if any has."""
    for row in tx.fetch_all("checkpoints_of_run", run_id=run_id):
        if row["key"] == name and row["state"] == "succeeded":
            return int(row["attempt"])
    return None
