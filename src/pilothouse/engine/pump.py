"""The pump: one transaction per cycle writes a worker's checkpoints, settles its attempts and claims new runs.

What arrives while a cycle is under way goes out with the next one; there is no timer, so a lone write costs one
commit and a busy worker pays one commit for many. Each write is fenced by its attempt, each cycle by the worker.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pilothouse.control import attempts, runs
from pilothouse.control.attempts import AttemptKey, Checkpoint, ClaimedRun, LogLine, Settlement
from pilothouse.control.concurrency import AgentVersion
from pilothouse.control.outcomes import Found, find_written
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.lanes import Demand, Lane
from pilothouse.domain.runs import RunState
from pilothouse.engine.attempt import OnSettled
from pilothouse.engine.patience import patiently
from pilothouse.errors import LeaseLost, OutcomeUnknown
from pilothouse.store.database import Database, Transaction

CYCLE_LIMIT = 500
"""Checkpoints and settlements in one transaction, at most; each."""

LOG_LIMIT = 10_000
"""Lines of run logs that may wait for a cycle; beyond it the oldest are dropped."""

SILENCE_SECONDS = 3.0
"""How long a cycle may be under way before the worker says that it pauses."""

CLOSE_LOOK_SECONDS = 0.1

IN_FLIGHT = {"sqlite": 1, "postgres": 2}
"""Cycles under way at once: two keep both sides busy where the database works on its own processor."""


@dataclass(slots=True)
class _Load:
    """What one cycle writes."""

    checkpoints: list[tuple[Checkpoint, asyncio.Future[None]]] = field(default_factory=list)
    settlements: list[tuple[Settlement, OnSettled]] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)
    progress: dict[AttemptKey, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.checkpoints or self.settlements or self.logs or self.progress)

    def take(self, limit: int, logging: Collection[AttemptKey]) -> _Load:
        """Splits off what fits into one cycle.

        An attempt whose log lines are on their way in another cycle (`logging`) keeps its next lines and its
        settlement until those are written, so that nobody sees a run's end before its last line.
        """
        settlements = [item for item in self.settlements if item[0].key not in logging][:limit]
        logs = [line for line in self.logs if line.key not in logging]
        taken = _Load(self.checkpoints[:limit], settlements, logs, self.progress)
        del self.checkpoints[:limit]
        chosen = {settlement.key for settlement, _ in settlements}
        self.settlements = [item for item in self.settlements if item[0].key not in chosen]
        self.logs = [line for line in self.logs if line.key in logging]
        self.progress = {}
        return taken

    def failed(self, error: Exception) -> _Written:
        """The same error for everyone who waits."""
        return _Written([error] * len(self.checkpoints), [error] * len(self.settlements), [])

    def split(self) -> list[_Load]:
        """One load per write, so that a row that cannot be written fails alone."""
        singles = [_Load(checkpoints=[item]) for item in self.checkpoints]
        singles += [_Load(settlements=[item]) for item in self.settlements]
        singles += [_Load(logs=[line]) for line in self.logs]
        return singles + [_Load(progress={key: value}) for key, value in self.progress.items()]

    def without(self, found: Found) -> _Load:
        """What is left of it when that was found. Its lines are left where nothing that went with them was found."""
        took_place = found.stored or found.ended or not (self.checkpoints or self.settlements)
        return _Load(
            [item for item in self.checkpoints if (item[0].run_id, item[0].key) not in found.stored],
            [item for item in self.settlements if item[0].key not in found.ended],
            [] if took_place else self.logs,
            {} if took_place else self.progress,
        )

    @property
    def makes_runs_due(self) -> bool:
        """Whether other workers may find something to claim after this: a child, a woken parent, a run queued again."""
        return any(item.children or item.asks for item, _ in self.checkpoints) or any(
            item.parent_id or item.waits or item.next.state == RunState.QUEUED for item, _ in self.settlements
        )

    @property
    def size(self) -> int:
        return len(self.checkpoints) + len(self.settlements) + len(self.logs) + len(self.progress)


@dataclass(frozen=True, slots=True)
class _Written:
    """The answers of one cycle, in the order of what was asked."""

    checkpoints: Sequence[Exception | None]
    settlements: Sequence[bool | Exception]
    claimed: list[ClaimedRun]


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker behind a pump. `claim_limit` bounds the runs of one claim per kind of slot, `demand` says what it can
    take now, `holds` whether it knows of an attempt as its own, `calendar` when days begin.

    `on_claimed` takes the slots of claimed runs, `start` begins their attempts; the others tell it what happened.
    """

    worker_id: str
    agents: Sequence[AgentVersion]
    claim_limit: int
    calendar: Calendar
    demand: Callable[[], Demand]
    holds: Callable[[AttemptKey], bool]
    on_claimed: Callable[[list[ClaimedRun]], None]
    start: Callable[[list[ClaimedRun]], None]
    on_lease_lost: Callable[[], None]
    on_paused: Callable[[str], None]
    on_resumed: Callable[[], None]
    on_fault: Callable[[Exception], None]


class Pump:
    """Coalesces a worker's writes and claims. All methods are called on the worker's event loop."""

    def __init__(self, db: Database, owner: Owner) -> None:
        self._db = db
        self._owner = owner
        self._waiting = _Load()
        self._free = IN_FLIGHT[db.dialect]
        self._cycles: dict[asyncio.Task[None], float] = {}
        self._hungry: frozenset[Lane] = frozenset()
        self._logging: set[AttemptKey] = set()
        self._promised: list[Demand] = []
        self._is_asked = False
        self._paused_at: float | None = None
        self._claiming = self._looking = 0
        self._has_claimed, self._has_looked = asyncio.Event(), asyncio.Event()

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Returns once the checkpoint is durable. Raises LeaseLost, or Refused for a child that does not fit."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.checkpoints.append((checkpoint, future))
        self._ask_for_cycle()
        await future

    def settle(self, settlement: Settlement, on_settled: OnSettled) -> None:
        """`on_settled` is called once the settlement is durable, or cannot be."""
        self._waiting.settlements.append((settlement, on_settled))
        self._ask_for_cycle()

    def log(self, line: LogLine) -> None:
        self._waiting.logs.append(line)
        if len(self._waiting.logs) > LOG_LIMIT:
            del self._waiting.logs[0]
        self._ask_for_cycle()

    def progress(self, key: AttemptKey, done: int, total: int | None) -> None:
        self._waiting.progress[key] = (done, total)
        self._ask_for_cycle()

    def claim(self) -> None:
        """Asks for new runs with the next cycle."""
        self._hungry = frozenset(Lane)
        self._ask_for_cycle()

    def stop_claiming(self) -> None:
        self._hungry = frozenset()

    def pause(self, reason: str) -> None:
        """The database is away; said once, until it answers again."""
        if self._paused_at is None:
            self._paused_at = self._db.clock.monotonic()
            self._owner.on_paused(reason)

    def note_answer(self) -> None:
        """A read was answered. While a cycle is under way that says nothing: what reads may still not write."""
        if not self._cycles:
            self._resume()

    @property
    def paused_seconds(self) -> float:
        """How long the database has been away; 0 while it answers."""
        return 0.0 if self._paused_at is None else self._db.clock.monotonic() - self._paused_at

    @property
    def under_way_since(self) -> float:
        """When the oldest cycle began that is not over yet, on the monotonic clock; infinity where all are over."""
        return min(self._cycles.values(), default=math.inf)

    async def close(self, patience_seconds: float) -> bool:
        """Waits until everything that was asked for is written; False where the database stayed away for too long."""
        while (self._cycles or self._is_asked) and self.paused_seconds < patience_seconds:
            await asyncio.wait({*self._cycles, asyncio.ensure_future(asyncio.sleep(0))}, timeout=CLOSE_LOOK_SECONDS)
        is_written = not self._cycles
        for cycle in tuple(self._cycles):
            cycle.cancel()
        return is_written

    def _ask_for_cycle(self) -> None:
        """In the next turn of the loop, so that what comes in this turn goes out together."""
        if self._free and not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._start_cycle)

    def _start_cycle(self) -> bool:
        """Whether there was anything to do for one."""
        self._is_asked = False
        if not self._free:
            return False
        demand = self._demand()
        load = self._waiting.take(CYCLE_LIMIT, self._logging)
        if demand is None and load.is_empty:
            return False
        self._free -= 1
        if demand is not None:
            self._promised.append(demand)
        self._logging.update(line.key for line in load.logs)
        task = asyncio.get_running_loop().create_task(self._run_cycle(load, demand))
        self._cycles[task] = self._db.clock.monotonic()
        task.add_done_callback(self._forget_cycle)
        return True

    def _demand(self) -> Demand | None:
        """What to claim with this cycle: the free slots that no other cycle is filling already."""
        if not self._hungry:
            return None
        demand = self._owner.demand().only(self._hungry)
        for promised in self._promised:
            demand = demand.without(promised)
        asked = demand.at_most(self._owner.claim_limit)
        if asked.is_empty:
            return None
        if asked == demand:
            self._hungry = frozenset()
        return asked

    async def _run_cycle(self, load: _Load, demand: Demand | None) -> None:
        """The next cycle is on its way before anybody hears of this one: the database is kept busy."""
        written = await self._written(load, demand)
        self._logging.difference_update(line.key for line in load.logs)
        if demand is not None:
            self._answer_claim(written.claimed, demand)
        self._free += 1
        if self._start_cycle():
            await asyncio.sleep(0)
        self._owner.start(written.claimed)
        self._answer(load, written)

    def _forget_cycle(self, task: asyncio.Task[None]) -> None:
        del self._cycles[task]
        if not task.cancelled():
            task.result()

    async def _written(self, load: _Load, demand: Demand | None) -> _Written:
        try:
            return await self._write(load, demand)
        except LeaseLost as error:
            self._resume()
            self._hungry = frozenset()
            self._owner.on_lease_lost()
            return load.failed(error)
        except Exception as error:  # noqa: BLE001 - a row that no store takes must not take its neighbours with it
            return await self._write_singly(load, error)

    async def _write(self, load: _Load, demand: Demand | None) -> _Written:
        """One transaction; while the database is away it is tried again, and nothing is forgotten.

        Only what has not taken place is tried again: a claim that nobody hears of would hold its run for ever.
        """
        silence = asyncio.get_running_loop().call_later(
            SILENCE_SECONDS, self.pause, f"the database has not answered for {SILENCE_SECONDS:.0f} s"
        )
        try:
            written = await patiently(
                lambda: self._write_once(load, demand),
                on_pause=self.pause,
            )
        finally:
            silence.cancel()
        self._resume()
        return written

    async def _write_once(self, load: _Load, demand: Demand | None) -> _Written:
        """The transaction; where its outcome is unknown, what is found of it answers, and nothing means not at all."""
        while True:
            try:
                return await self._transact(load, demand)
            except OutcomeUnknown as error:
                self.pause(str(error))
            found = await self._look_for(load)
            unheard = [run for run in found.held if demand is not None and not self._owner.holds(run.key)]
            if found.stored or found.ended or unheard:
                return await self._complete(load, found, unheard)

    async def _transact(self, load: _Load, demand: Demand | None) -> _Written:
        """No run is claimed while another cycle looks for what it has claimed: nobody could tell whose a run is."""
        if demand is None:
            return await self._db.transaction(lambda tx: self._work(tx, load, None), is_patient=True)
        while self._looking:
            await self._has_looked.wait()
        self._claiming += 1
        self._has_claimed.clear()
        try:
            return await self._db.transaction(lambda tx: self._work(tx, load, demand), is_patient=True)
        finally:
            self._claiming -= 1
            if not self._claiming:
                self._has_claimed.set()

    async def _look_for(self, load: _Load) -> Found:
        """What is there of a load, once every claim that was under way is answered or unheard of as well."""
        checkpoints, settlements = [item for item, _ in load.checkpoints], [item for item, _ in load.settlements]

        def find(tx: Transaction) -> Found:
            attempts.fence_worker(tx, self._owner.worker_id)
            return find_written(tx, self._owner.worker_id, checkpoints, settlements)

        self._looking += 1
        self._has_looked.clear()
        try:
            while self._claiming:
                await self._has_claimed.wait()
            return await patiently(lambda: self._db.transaction(find))
        finally:
            self._looking -= 1
            if not self._looking:
                self._has_looked.set()

    async def _complete(self, load: _Load, found: Found, unheard: list[ClaimedRun]) -> _Written:
        """The answers of a load of which something was found. The rest was refused, and is refused again; or what was
        found is another cycle's claim, and the rest is written now.
        """
        rest = load.without(found)
        try:
            written = await self._write_once(rest, None) if not rest.is_empty else _Written([], [], [])
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - the claims that were found must not be lost with it
            written = await self._write_singly(rest, error)
        refusals, settled = iter(written.checkpoints), iter(written.settlements)
        return _Written(
            [None if (c.run_id, c.key) in found.stored else next(refusals) for c, _ in load.checkpoints],
            [True if s.key in found.ended else next(settled) for s, _ in load.settlements],
            unheard,
        )

    def _work(self, tx: Transaction, load: _Load, demand: Demand | None) -> _Written:
        owner = self._owner
        attempts.fence_worker(tx, owner.worker_id)
        checkpoints = self._write_checkpoints(tx, load) if load.checkpoints else []
        settlements = [item for item, _ in load.settlements]
        attempts.lock_families(tx, settlements, [run_id for run_id, _ in load.progress])
        attempts.write_logs(tx, load.logs)
        attempts.write_progress(tx, load.progress)
        settled = attempts.settle_attempts(tx, settlements, principal=f"worker:{owner.worker_id}")
        claimed = attempts.claim_runs(tx, owner.worker_id, demand, owner.agents) if demand is not None else []
        return _Written(checkpoints, [s.key in settled for s in settlements], claimed)

    def _write_checkpoints(self, tx: Transaction, load: _Load) -> list[Exception | None]:
        return attempts.write_checkpoints(tx, [item for item, _ in load.checkpoints], self._owner.calendar)

    def _answer(self, load: _Load, written: _Written) -> None:
        for (_, stored), refusal in zip(load.checkpoints, written.checkpoints, strict=True):
            _resolve(stored, refusal)
        for (_, on_settled), answer in zip(load.settlements, written.settlements, strict=True):
            on_settled(answer)
        if load.makes_runs_due:
            self._db.notify(runs.WAKE_RUNS)

    def _answer_claim(self, claimed: list[ClaimedRun], demand: Demand) -> None:
        """A lane that may hold more stays hungry: the next free slot asks again at once."""
        self._promised.remove(demand)
        unsated = demand.unsated(Counter(run.lane for run in claimed))
        self._hungry = (self._hungry - demand.reserved.keys()) | unsated
        self._owner.on_claimed(claimed)

    async def _write_singly(self, load: _Load, error: Exception) -> _Written:
        if load.is_empty:
            self._owner.on_fault(error)  # the next poll claims again
        if load.size <= 1:
            return load.failed(error)
        self._hungry = frozenset(Lane)
        singles = [await self._written(single, None) for single in load.split()]
        return _Written(
            [answer for single in singles for answer in single.checkpoints],
            [answer for single in singles for answer in single.settlements],
            [],
        )

    def _resume(self) -> None:
        if self._paused_at is not None:
            self._paused_at = None
            self._owner.on_resumed()


def _resolve(future: asyncio.Future[None], refusal: Exception | None) -> None:
    if future.done():
        return
    if refusal is None:
        future.set_result(None)
    else:
        future.set_exception(refusal)
