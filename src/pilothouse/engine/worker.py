"""The worker: claims runs for its agents, executes their attempts side by side, drains and stops."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec

from pilothouse import __version__, payloads
from pilothouse.clock import new_id
from pilothouse.control import switchboard, workers
from pilothouse.control.attempts import AttemptKey, ClaimedRun, encode_versions
from pilothouse.control.runs import WAKE_CANCEL, WAKE_RUNS
from pilothouse.control.switchboard import Switches
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.calendars import UTC_CALENDAR, Calendar
from pilothouse.domain.lanes import LANE_ORDER, Demand, Lane, Slots
from pilothouse.engine import executor
from pilothouse.engine.agent import Agent
from pilothouse.engine.attempt import NOTHING_AROUND, Attempt, Services, StopReason, Surroundings
from pilothouse.engine.isolation import Isolation, check_isolated
from pilothouse.engine.lease import LeaseKeeper, LeaseTerms
from pilothouse.engine.pump import Owner, Pump
from pilothouse.engine.reader import DatabaseReader
from pilothouse.engine.strays import Strays
from pilothouse.engine.switches import SwitchWatch, give_back
from pilothouse.engine.threads import Threads
from pilothouse.errors import StoreError, StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.telemetry.events import (
    Emitter,
    RunClaimed,
    WorkerDraining,
    WorkerFault,
    WorkerLeaseLost,
    WorkerPaused,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
)

P = ParamSpec("P")

CANCEL_LOOK_SECONDS = 0.1

CLAIMS_PER_ROUND, LEAST_CLAIM = 2, 32
"""A worker fills its slots in this many parts of at least so many runs: some run while others are written."""

REGISTER_SECONDS = 1.0
"""How long to wait before the next try of a worker that could not register."""

RELEASE_LOOK_SECONDS = 0.1
RELEASED_NOTE = "its worker was stopped"

CLOSE_SECONDS = 5.0
"""How long a worker tries to say good-bye to a database that is away."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker behaves. `is_enabled` False: it keeps its lease and claims nothing. `calendar`: when days begin."""

    app: str
    slots: Slots
    terms: LeaseTerms
    poll_seconds: float
    drain_seconds: float
    attempt_timeout_seconds: float
    is_enabled: bool = True
    calendar: Calendar = UTC_CALENDAR


class Worker:
    """One lease's worth of a worker. After a lost lease a new one takes its place, under a new id."""

    def __init__(
        self,
        db: Database,
        agents: Mapping[str, Agent],
        options: WorkerOptions,
        emitter: Emitter,
        around: Surroundings = NOTHING_AROUND,
    ) -> None:
        check_isolated(agents)
        self._around = around
        self._switches = around.switches if isinstance(around.switches, Switches) else None
        self.id = new_id()
        self._db = db
        self._agents = agents
        self._options = options
        self._emitter = emitter
        self._versions = [agents[name].version for name in sorted(agents)]
        self._threads = Threads("pilothouse-agent")
        self._isolation = Isolation(agents, around.preload)
        self._running: dict[AttemptKey, Attempt | None] = {}
        self._held: set[AttemptKey] = set()
        self._holds_nothing = asyncio.Event()
        self._loading: set[asyncio.Task[Attempt]] = set()
        self._in_use: Counter[Lane] = Counter()
        self._is_draining = False
        self._is_lost = False
        self._is_clean = True
        self._wake = asyncio.Event()
        self._hinted: set[str] = set()
        self._looked_for_cancels = 0.0

    async def run(self, stop: asyncio.Event) -> bool:
        """Works until `stop` is set or an operator drains it; False where its lease was lost."""
        await self._register()
        self._isolation.warm()
        self._pump = Pump(self._db, self._owner())
        self._services = Services(
            reader=DatabaseReader(self._db),
            writer=self._pump,
            threads=self._threads,
            clock=self._db.clock,
            emitter=self._emitter,
            attempt_timeout_seconds=self._options.attempt_timeout_seconds,
            isolation=self._isolation,
            around=self._around,
        )
        self._strays = Strays(self._db, self.id, self._pump, lambda key: key in self._held)
        self._hooks = executor.Hooks(on_loaded=self._track, on_called=self._free_slot, on_done=self._forget)
        keeper = LeaseKeeper(
            self._db,
            self.id,
            self._options.terms,
            on_lost=self._on_loop(self._lose_lease),
            on_draining=self._on_loop(self._start_draining),
            on_renewed=self._on_loop(self._look_at_switches),
        )
        keeper.start()
        unlisten = self._db.listen(self._on_loop(self._hint))
        watching = self._watch_switches()
        try:
            await self._work(stop)
            await self._drain()
        finally:
            unlisten()
            if watching is not None:
                watching.cancel()
            keeper.stop()
            await self._isolation.close()
        await self._say_goodbye()
        return not self._is_lost

    @staticmethod
    def _on_loop(callback: Callable[P, None]) -> Callable[P, None]:
        """`callback`, callable from any thread; a hint that comes after the loop has closed is not wanted any more."""
        loop = asyncio.get_running_loop()

        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(partial(callback, *args, **kwargs))

        return call

    async def _register(self) -> None:
        cards = [a.card(self._options.app, self._options.attempt_timeout_seconds) for a in self._agents.values()]
        slots = {**{str(lane): self._options.slots.reserved.get(lane, 0) for lane in LANE_ORDER}}
        card = WorkerCard(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            app=self._options.app,
            version=__version__,
            agents=self._versions,
            slots=slots | {"shared": self._options.slots.shared},
            is_enabled=self._options.is_enabled,
        )
        lease_us = self._options.terms.lease_us
        await self._db.transaction(lambda tx: workers.register(tx, card, cards, lease_us=lease_us))
        self._emitter.emit(WorkerStarted(self.id, ", ".join(sorted(self._agents)), self._options.slots.total))

    def _owner(self) -> Owner:
        return Owner(
            worker_id=self.id,
            agents=self._versions,
            claim_limit=max(LEAST_CLAIM, self._options.slots.total // CLAIMS_PER_ROUND),
            calendar=self._options.calendar,
            demand=self._demand,
            holds=lambda key: key in self._held,
            on_claimed=self._reserve_slots,
            start=self._start_attempts,
            on_lease_lost=self._lose_lease,
            on_paused=lambda reason: self._emitter.emit(WorkerPaused(self.id, reason)),
            on_resumed=lambda: self._emitter.emit(WorkerResumed(self.id)),
            on_fault=self._tell_fault,
        )

    # --- claiming --------------------------------------------------------------------------

    def _demand(self) -> Demand:
        if self._is_draining or self._is_lost:
            return Demand(reserved={}, shared=0)
        return self._options.slots.free(self._in_use)

    async def _work(self, stop: asyncio.Event) -> None:
        """Looks for eligible runs at every hint and every poll, until told to stop."""
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            while not (stop.is_set() or self._is_draining or self._is_lost):
                wait_seconds = await self._look()
                await self._sleep(wait_seconds)
        finally:
            stopping.cancel()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._hinted.add("poll")
        self._wake.clear()

    async def _look(self) -> float:
        """Acts on the hints so far; how long to wait for the next ones, in seconds."""
        hinted, self._hinted = self._hinted, set()
        try:
            if self._around.run_limits is not None:
                await self._around.run_limits.look()
            await self._give_up_strays()
            if self._running and self._should_look_for_cancels(hinted):
                await self._cancel_asked()
            if not self._options.is_enabled or self._demand().is_empty:
                return self._options.poll_seconds
            if hinted == {WAKE_RUNS}:
                self._pump.claim()
                return self._options.poll_seconds
            return await self._claim_when_due()
        except StoreUnavailable as error:
            self._pump.pause(str(error))
            return self._options.poll_seconds
        except Exception as error:  # noqa: BLE001 - what runs must not be lost with a look, whatever it ran into
            self._tell_fault(error)
            return self._options.poll_seconds

    def _tell_fault(self, error: Exception) -> None:
        self._emitter.emit(WorkerFault(self.id, f"{type(error).__name__}: {error}", error))

    async def _give_up_strays(self) -> None:
        strays = await self._strays.give_up()
        if strays:
            names = ", ".join(f"{run_id}.{number}" for run_id, number in sorted(strays))
            self._emitter.emit(WorkerFault(self.id, f"gave up attempts that it did not know of: {names}"))
            self._db.notify(WAKE_RUNS)

    def _should_look_for_cancels(self, hinted: set[str]) -> bool:
        """At once when told so; at a bounded rate when the hint says only that something has changed."""
        now = self._db.clock.monotonic()
        if WAKE_CANCEL in hinted or "poll" in hinted or now - self._looked_for_cancels >= CANCEL_LOOK_SECONDS:
            self._looked_for_cancels = now
            return True
        return False

    async def _claim_when_due(self) -> float:
        """Looks before it claims: an idle worker must not take the write lock for nothing."""
        due_at, now = await self._next_due()
        if due_at is None:
            return self._options.poll_seconds
        if due_at <= now:
            self._pump.claim()
            return self._options.poll_seconds
        return min(self._options.poll_seconds, (due_at - now) / 1_000_000)

    async def _next_due(self) -> tuple[int | None, int]:
        tripped = {} if self._switches is None else self._switches.tripped
        allowed = switchboard.claimable(tripped, self._demand(), self._versions)
        lanes = payloads.encode([lane for lane in LANE_ORDER if lane in allowed.demand.reserved])
        agents, held_tenants = encode_versions(allowed.agents), payloads.encode(list(allowed.held_tenants))
        row = await self._db.read(
            lambda tx: tx.fetch_one("next_due", lanes=lanes, agents=agents, held_tenants=held_tenants)
        )
        self._pump.note_answer()
        assert row is not None
        return row["due_at"], row["now"]

    def _hint(self, topic: str) -> None:
        self._hinted.add(topic)
        self._wake.set()

    def _reserve_slots(self, claimed: list[ClaimedRun]) -> None:
        for claim in claimed:
            self._in_use[claim.lane] += 1
            self._running[claim.key] = None
            self._held.add(claim.key)

    def _start_attempts(self, claimed: list[ClaimedRun]) -> None:
        for claim in claimed:
            agent = self._agents[claim.agent]
            self._emitter.emit(_claimed(claim, agent.version.fingerprint, self.id))
            loading = executor.start(claim, agent, self._services, self._hooks)
            if loading is not None:
                self._loading.add(loading)
                loading.add_done_callback(self._loading.discard)

    def _track(self, attempt: Attempt) -> None:
        self._running[attempt.claim.key] = attempt
        if self._switches is not None:
            give_back(attempt, self._switches)
        if self._is_lost:
            attempt.stop("lost")
        elif self._is_draining:
            attempt.stop("released", RELEASED_NOTE)

    def _free_slot(self, attempt: Attempt) -> None:
        """The slot is free once the handler has ended; its settlement goes out with the claim that fills it again."""
        del self._running[attempt.claim.key]
        self._in_use[attempt.claim.lane] -= 1

    def _forget(self, attempt: Attempt) -> None:
        self._held.discard(attempt.claim.key)
        if not self._held:
            self._holds_nothing.set()

    # --- stopping --------------------------------------------------------------------------

    async def _cancel_asked(self) -> None:
        rows = await self._db.read(lambda tx: tx.fetch_all("cancelling_runs", worker_id=self.id))
        for row in rows:
            self._stop_attempt((row["id"], row["attempt"]), "cancelled")

    def _stop_attempt(self, key: AttemptKey, reason: StopReason, note: str = "") -> None:
        attempt = self._running.get(key)
        if attempt is not None:
            attempt.stop(reason, note)

    def _watch_switches(self) -> asyncio.Task[None] | None:
        if self._switches is None:
            return None
        self._watch = SwitchWatch(self._db, self.id, self._switches, self._emitter)
        watching = asyncio.get_running_loop().create_task(self._watch.run(self._apply_switches))
        watching.add_done_callback(self._tell_broken_watch)
        return watching

    def _look_at_switches(self) -> None:
        if self._switches is not None:
            self._watch.hint()

    def _apply_switches(self) -> None:
        """What is to be aborted is given back at once; everything else meets the switch at its next effect."""
        assert self._switches is not None
        for attempt in tuple(self._running.values()):
            if attempt is not None:
                give_back(attempt, self._switches)

    def _tell_broken_watch(self, watching: asyncio.Task[None]) -> None:
        """Effects look for themselves then, but nobody acknowledges a switch."""
        error = None if watching.cancelled() else watching.exception()
        if isinstance(error, Exception):
            self._tell_fault(error)

    def _start_draining(self) -> None:
        self._is_draining = True
        self._wake.set()

    def _lose_lease(self) -> None:
        """Everything this worker runs belongs to others now."""
        if self._is_lost:
            return
        self._is_lost = True
        self._emitter.emit(WorkerLeaseLost(self.id, len(self._running)))
        for key in tuple(self._running):
            self._stop_attempt(key, "lost")
        self._wake.set()

    async def _drain(self) -> None:
        """Claims nothing more, lets what runs finish for the drain time, releases the rest at its last checkpoint.

        What cannot be written because the database stays away is left to the janitor.
        """
        self._is_draining = True
        self._pump.stop_claiming()
        if self._held and not self._is_lost:
            self._emitter.emit(WorkerDraining(self.id, len(self._held), self._options.drain_seconds))
            await self._until_done(self._options.drain_seconds)
        released = await self._release_all()
        is_written = await self._pump.close(CLOSE_SECONDS)
        if is_written and self._held:  # what a claim brought that was under way
            released += await self._release_all()
            is_written = await self._pump.close(CLOSE_SECONDS)
        self._is_clean = is_written and not self._held
        self._release()
        for loading in tuple(self._loading):
            loading.cancel()
        self._emitter.emit(WorkerStopped(self.id, released))

    async def _release_all(self) -> int:
        """Until nothing is held any more, or the database stays away; how many attempts it took."""
        released = 0
        while self._held and self._pump.paused_seconds < CLOSE_SECONDS:
            released = max(released, len(self._running))
            self._release()
            await self._until_done(RELEASE_LOOK_SECONDS)
        return released

    def _release(self) -> None:
        for key in tuple(self._running):
            self._stop_attempt(key, "released", RELEASED_NOTE)

    async def _until_done(self, seconds: float) -> None:
        """Until everything that this worker holds is settled, or the time is over."""
        self._holds_nothing.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._holds_nothing.wait()

    async def _say_goodbye(self) -> None:
        if self._is_lost or not self._is_clean:
            return  # the lease runs out, and the janitor takes what may still be held
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._db.transaction(lambda tx: workers.stop(tx, self.id))
        except (StoreError, TimeoutError):
            return  # the janitor ends the lease; it holds nothing any more


def _claimed(claim: ClaimedRun, version: str, worker_id: str) -> RunClaimed:
    return RunClaimed(
        claim.run_id,
        claim.attempt,
        claim.agent,
        claim.lane,
        worker_id,
        (claim.claimed_at - claim.created_at) / 1000,
        claim.tenant,
        version,
        claim.root_id,
        claim.parent_id,
        claim.traceparent,
        claim.created_at,
        claim.claimed_at,
    )


async def keep_working(
    db: Database,
    agents: Mapping[str, Agent],
    options: WorkerOptions,
    emitter: Emitter,
    stop: asyncio.Event,
    around: Surroundings = NOTHING_AROUND,
) -> None:
    """One worker after the other, until `stop` is set or an operator drains one."""
    is_done = False
    while not (is_done or stop.is_set()):
        worker = Worker(db, agents, options, emitter, around)
        try:
            is_done = await worker.run(stop)
        except StoreUnavailable as error:  # nobody knows whether it registered, so the next one has an id of its own
            emitter.emit(WorkerPaused(worker.id, str(error)))
            with suppress(TimeoutError):
                async with asyncio.timeout(REGISTER_SECONDS):
                    await stop.wait()
