"""One attempt in memory: its journal, what it waits for, and the ways in which it can be stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from pilothouse.clock import Clock
from pilothouse.control.attempts import AttemptKey, Checkpoint, ClaimedRun, LogLine, Settlement
from pilothouse.control.breakers import Breakers
from pilothouse.control.waits import Wait
from pilothouse.domain.limits import Unit
from pilothouse.domain.policies import Proposal, Verdict
from pilothouse.domain.runaways import Excess, RunawayRule
from pilothouse.domain.secrets import redact
from pilothouse.domain.switches import Switch, Target
from pilothouse.engine.agent import Agent
from pilothouse.engine.endings import Ended
from pilothouse.engine.journal import Journal, current_path
from pilothouse.engine.reader import Reader
from pilothouse.engine.threads import Threads
from pilothouse.errors import FatalError, Stopped
from pilothouse.llm.prompts import Answer, Prompt
from pilothouse.telemetry.events import Emitter

T = TypeVar("T", str, str | None)

StopReason = Literal["suspended", "cancelled", "timed_out", "past_deadline", "released", "lost", "ended", "worked_out"]
"""Why a handler may begin nothing more. `ended`: it returned or failed, and something that it began goes on.
`worked_out`: the run has worked for as long as it may.
"""

ASKED_KIND = "asked"
"""The kind of the step that asks a person for something."""

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


class Models(Protocol):
    """Asks models; the gateway is one. See `Gateway.answer` for what it raises."""

    async def answer(self, prompt: Prompt) -> Answer: ...


class RunLimits(Protocol):
    """The limits on what a single run may do, as they were seen last."""

    async def look(self, *, anew: bool = False) -> None: ...
    def of(self, run_id: str, agent: str, unit: Unit) -> tuple[int | None, int]:
        """The closest limit (None: there is none), and the latest change of any that was seen."""


class Secrets(Protocol):
    """Finds the secrets of tools. Raises ToolError for one that is not there for this agent and tenant."""

    def find(self, name: str, *, agent: str, tenant: str) -> str: ...


class SwitchView(Protocol):
    """The kill switches as this process has seen them last; `control.switchboard.Switches` is one."""

    @property
    def is_fresh(self) -> bool: ...
    async def refresh(self) -> None: ...
    def held(self, target: Target, tool: str | None = None) -> Switch | None: ...


class RunawayView(Protocol):
    """When a run has run away; `control.runaways.Runaways` is one."""

    @property
    def rule(self) -> RunawayRule: ...
    async def too_fast(self, tokens: int, version: str) -> Excess | None: ...


class Judge(Protocol):
    """Says what may become of a proposed action; `Policies` of control is one. `confidence` is as it was stated."""

    async def verdict(self, proposal: Proposal, confidence: float | None, run_id: str | None = None) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the runs of a worker reach outside of it: models, secrets, breakers of tools, limits on what one run may do,
    policies, the kill switches that stop their effects, and what tells a runaway. None: there are none.

    `preload` are modules that isolated attempts will need, so that not each has to import them for itself. `channels`
    are where people are told of what runs ask them. `trace_share` of the runs are traced, 0 where none is.
    """

    models: Models | None = None
    secrets: Secrets | None = None
    breakers: Breakers | None = None
    preload: tuple[str, ...] = ()
    run_limits: RunLimits | None = None
    policies: Judge | None = None
    channels: tuple[str, ...] = ()
    switches: SwitchView | None = None
    runaways: RunawayView | None = None
    trace_share: float = 0.0


NOTHING_AROUND = Surroundings()


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
    around: Surroundings = NOTHING_AROUND


@dataclass(frozen=True, slots=True)
class Parked:
    """A wait of one branch of the handler: what for, and until when (an instant in microseconds; None: no limit)."""

    waits: tuple[Wait, ...]
    wake_at: int | None
    reason: str | None = None


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
        self.timer: asyncio.TimerHandle | None = None
        self.has_ended = False
        self.worked_us = 0
        self.has_asked = journal.count(ASKED_KIND) > 0
        self._claimed_monotonic = services.clock.monotonic()
        self._busy = 0
        self._calm: asyncio.Event | None = None
        self._told = 0
        self._tasks: set[asyncio.Future[Any]] = set()
        self._secrets: frozenset[str] = frozenset()
        self._uses = Counter[str]()
        self._counts = Counter[str]()
        self.tokens = Counter[int]()
        """Of models, by the minute in which they were asked; only what this attempt has asked."""
        version = agent.version.fingerprint
        self.target = Target(claim.tenant, claim.agent, claim.lane, version)
        """What kill switches know it by."""

    # --- what it has seen ------------------------------------------------------------------

    def hide(self, secret: str) -> None:
        """From now on the secret is taken out of whatever is written of this attempt."""
        self._secrets |= {secret}

    def redact(self, text: T) -> T:
        """The text without the secrets that this attempt has had."""
        return redact(text, self._secrets) if self._secrets and isinstance(text, str) else text

    def unique(self, name: str) -> str:
        """The name, with a number from its second use on: the order of uses is the same on every replay."""
        self._uses[name] += 1
        return name if self._uses[name] == 1 else f"{name}-{self._uses[name]}"

    def count(self, mark: str) -> int:
        """How often the run has met something, this time included."""
        self._counts[mark] += 1
        return self._counts[mark]

    def uses(self, name: str) -> int:
        """How often `unique` has been asked for a name."""
        return self._uses[name]

    # --- time ------------------------------------------------------------------------------

    @property
    def timeout_seconds(self) -> float:
        return self.agent.options.timeout_seconds or self.services.attempt_timeout_seconds

    @property
    def work_left_seconds(self) -> float:
        """How much longer the run may work, by its limit; what earlier attempts took is counted."""
        limits = self.services.around.run_limits
        if limits is None:
            return float("inf")
        limit, _ = limits.of(self.claim.run_id, self.claim.agent, Unit.SECONDS)
        return float("inf") if limit is None else max(0.0, limit - self.worked_us / 1_000_000)

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
        if self._busy == 0 and self._calm is not None:
            self._calm.set()

    async def until_calm(self) -> None:
        """Returns once no step is under way."""
        while self._busy:
            self._calm = asyncio.Event()
            await self._calm.wait()

    async def refuse_if_stopped(self) -> None:
        """Raises Stopped in a handler that goes on after it was stopped; leaves it hanging if it does not listen."""
        if self.stop_reason is None:
            return
        self._told += 1
        if self._told <= STOPPED_CALLS:
            raise Stopped(self.stop_reason)
        await self.loop.create_future()

    async def park(self, waits: tuple[Wait, ...], wake_at: int | None, reason: str | None = None) -> NoReturn:
        """Waits for ever: the run is suspended as soon as nothing else in it is under way; the audit tells the reason.

        Raises FatalError inside a step, which would be executed again from its beginning.
        """
        if current_path.get():
            raise FatalError(f"step {current_path.get()!r} waits inside its function; wait outside of it")
        await self.park_anywhere(waits, wake_at, reason)

    async def park_anywhere(self, waits: tuple[Wait, ...], wake_at: int | None, reason: str | None = None) -> NoReturn:
        """As `park`, also inside a step: what the engine itself makes a run wait for must not fail it."""
        innermost = _innermost.get()
        if innermost is not None:
            innermost.end_all()
        self.parked.append(Parked(waits, wake_at, reason))
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

    def close(self) -> None:
        """The handler has ended by itself: what it left behind begins no step, asks no model and calls no tool."""
        self.has_ended = True
        self.stop_reason = self.stop_reason or "ended"

    def end(self) -> None:
        """The handler has ended, or nobody waits for it any more."""
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over()


class _Busy:
    """One step's time under way. A step inside of which a branch is parked is not under way, like those around it."""

    __slots__ = ("_attempt", "_is_over", "_outer", "_token")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._is_over = False

    def __enter__(self) -> None:
        self._outer = _innermost.get()
        self._token: Token[_Busy | None] = _innermost.set(self)
        self._attempt.change_busy(1)

    def __exit__(self, *_: object) -> None:
        _innermost.reset(self._token)
        self._end()

    def end_all(self) -> None:
        """It and the steps around it wait from now on."""
        self._end()
        if self._outer is not None:
            self._outer.end_all()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._attempt.change_busy(-1)


_innermost: ContextVar[_Busy | None] = ContextVar("pilothouse_busy", default=None)
"""The step that is under way around the code that asks."""
