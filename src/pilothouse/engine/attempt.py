"""One attempt in memory: its journal, what it waits for, and the ways in which it can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

from pilothouse.clock import Clock
from pilothouse.control.attempts import AttemptKey, Checkpoint, ClaimedRun, LogLine, Settlement
from pilothouse.control.waits import Wait
from pilothouse.engine.agent import Agent
from pilothouse.engine.endings import Ended
from pilothouse.engine.journal import Journal, current_path
from pilothouse.engine.reader import Reader
from pilothouse.engine.threads import Threads
from pilothouse.errors import FatalError, Stopped
from pilothouse.telemetry.events import Emitter

StopReason = Literal["suspended", "cancelled", "timed_out", "past_deadline", "released", "lost"]

ABANDON_SECONDS = 10.0
"""How long a handler that was stopped may go on before its attempt is ended without it."""

QUIET_TURNS = 10
"""Turns of the event loop without a step under way after which a waiting handler is taken to have nothing else to do.

It bridges the few turns that asyncio needs to hand a finished step's result through `gather` or a task group.
"""

STOPPED_CALLS = 3
"""How often a stopped handler is told so by an exception; one that swallows even those is left hanging."""


OnSettled = Callable[[bool | Exception], None]
"""Is told whether a settlement is durable: False where the attempt was not its worker's any more, or why not."""


class Writer(Protocol):
    """Where an attempt's writes go; the pump is one."""

    async def checkpoint(self, checkpoint: Checkpoint) -> None: ...
    def settle(self, settlement: Settlement, on_settled: OnSettled) -> None: ...
    def log(self, line: LogLine) -> None: ...
    def progress(self, key: AttemptKey, done: int, total: int | None) -> None: ...


class Isolation(Protocol):
    """Runs attempts in processes of their own."""

    def when_ready(self, agent: Agent, then: Callable[[], None]) -> None: ...
    async def run(self, attempt: Attempt) -> Ended: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What every attempt of one worker shares. `isolation` is None where a process runs one attempt already."""

    reader: Reader
    writer: Writer
    threads: Threads
    clock: Clock
    emitter: Emitter
    attempt_timeout_seconds: float
    isolation: Isolation | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """A wait of one branch of the handler: what for, and until when (an instant in microseconds; None: no limit)."""

    waits: tuple[Wait, ...]
    wake_at: int | None


class Attempt:
    """The state that the executor, the context and the worker share about one attempt."""

    def __init__(self, claim: ClaimedRun, agent: Agent, services: Services, journal: Journal) -> None:
        self.claim = claim
        self.agent = agent
        self.services = services
        self.journal = journal
        self.loop = asyncio.get_running_loop()
        self.stop_reason: StopReason | None = None
        self.stop_note = ""
        self.parked: list[Parked] = []
        self.on_over: Callable[[], None] | None = None
        self.has_ended = False
        self._claimed_monotonic = services.clock.monotonic()
        self._busy = 0
        self._told = 0
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def timeout_seconds(self) -> float:
        return self.agent.options.timeout_seconds or self.services.attempt_timeout_seconds

    def now_us(self) -> int:
        """The database's instant: that of the claim, and what has passed since."""
        if self.services.clock.frozen:
            return self.services.clock.now_us()
        passed = self.services.clock.monotonic() - self._claimed_monotonic
        return self.claim.claimed_at + int(passed * 1_000_000)

    # --- what runs inside ------------------------------------------------------------------

    def own(self, task: asyncio.Future[Any]) -> None:
        """Registers a task that is cancelled when the attempt is stopped."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def busy(self) -> _Busy:
        """Marks that a step is under way, so that a wait of another branch does not suspend the run yet."""
        return _Busy(self)

    def change_busy(self, change: int) -> None:
        self._busy += change
        if self.parked:
            self._watch_for_quiet(QUIET_TURNS)

    async def refuse_if_stopped(self) -> None:
        """Raises Stopped in a handler that goes on after it was stopped; leaves it hanging if it does not listen."""
        if self.stop_reason is None:
            return
        self._told += 1
        if self._told <= STOPPED_CALLS:
            raise Stopped(self.stop_reason)
        await self.loop.create_future()

    async def park(self, waits: tuple[Wait, ...], wake_at: int | None) -> NoReturn:
        """Waits for ever: the run is suspended as soon as nothing else in it is under way.

        Raises FatalError inside a step, whose being under way would keep the run from ever being suspended.
        """
        if current_path.get():
            raise FatalError(f"step {current_path.get()!r} waits inside its function; wait outside of it")
        self.parked.append(Parked(waits, wake_at))
        self._watch_for_quiet(QUIET_TURNS)
        await self.loop.create_future()
        raise AssertionError("a parked branch is never resumed")

    def _watch_for_quiet(self, turns: int) -> None:
        if self._busy or not self.parked or self.stop_reason is not None:
            return
        if turns == 0:
            self.stop("suspended")
        else:
            self.loop.call_soon(self._watch_for_quiet, turns - 1)

    # --- stopping --------------------------------------------------------------------------

    def stop(self, reason: StopReason, note: str = "") -> None:
        """Stops the handler at its next await or step. The first reason stands, except that a lost lease beats all."""
        if reason == "lost":
            self.stop_reason = reason
        if self.has_ended or (self.stop_reason is not None and reason != "lost"):
            return
        self.stop_reason, self.stop_note = reason, note
        for task in tuple(self._tasks):
            task.cancel()
        self.loop.call_later(ABANDON_SECONDS, self.end)

    def end(self) -> None:
        """The handler has ended, or nobody waits for it any more."""
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()


class _Busy:
    """One step's time under way."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._attempt.change_busy(1)

    def __exit__(self, *_: object) -> None:
        self._attempt.change_busy(-1)
