"""The catalogue of typed events: what happened, told once; sinks turn them into logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `name` and `level` are the same for all events of a class."""

    name: ClassVar[str] = "event"
    level: ClassVar[str] = "info"


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    name: ClassVar[str] = "worker.started"
    worker_id: str
    agents: str
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerDraining(Event):
    name: ClassVar[str] = "worker.draining"
    worker_id: str
    running: int
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    name: ClassVar[str] = "worker.stopped"
    worker_id: str
    released: int


@dataclass(frozen=True, slots=True)
class WorkerLeaseLost(Event):
    name: ClassVar[str] = "worker.lease_lost"
    level: ClassVar[str] = "error"
    worker_id: str
    dropped: int


@dataclass(frozen=True, slots=True)
class WorkerPaused(Event):
    """The database is gone for now; the worker holds what it has and tries again."""

    name: ClassVar[str] = "worker.paused"
    level: ClassVar[str] = "error"
    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerFault(Event):
    """The database refused a claim, or the worker ran into a bug; it goes on with the next poll."""

    name: ClassVar[str] = "worker.fault"
    level: ClassVar[str] = "error"
    worker_id: str
    reason: str
    exc_info: BaseException | None = None


@dataclass(frozen=True, slots=True)
class WorkerResumed(Event):
    name: ClassVar[str] = "worker.resumed"
    worker_id: str


@dataclass(frozen=True, slots=True)
class RunClaimed(Event):
    name: ClassVar[str] = "run.claimed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    agent: str
    lane: str
    worker_id: str
    waited_ms: float


@dataclass(frozen=True, slots=True)
class RunSettled(Event):
    name: ClassVar[str] = "run.settled"
    run_id: str
    attempt: int
    agent: str
    state: str
    ending: str
    duration_ms: float
    steps_executed: int
    steps_replayed: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunDropped(Event):
    """A result that nobody will see: its attempt was no longer its worker's, or its end could not be written."""

    name: ClassVar[str] = "run.dropped"
    level: ClassVar[str] = "warning"
    run_id: str
    attempt: int
    agent: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandlerAbandoned(Event):
    """A handler was stopped and did not stop; its attempt was ended without it."""

    name: ClassVar[str] = "handler.abandoned"
    level: ClassVar[str] = "error"
    run_id: str
    attempt: int
    agent: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepExecuted(Event):
    """A step's function has returned; its checkpoint is about to be written."""

    name: ClassVar[str] = "step.executed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    step: str
    duration_us: int


@dataclass(frozen=True, slots=True)
class AttemptsReaped(Event):
    name: ClassVar[str] = "attempts.reaped"
    level: ClassVar[str] = "warning"
    attempts: int
    runs: str


@dataclass(frozen=True, slots=True)
class ChoreFailed(Event):
    name: ClassVar[str] = "chore.failed"
    level: ClassVar[str] = "error"
    chore: str
    reason: str
    exc_info: BaseException | None = None


Sink = Callable[[Event], None]


class Emitter:
    """Hands each event to every sink."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink(event)
