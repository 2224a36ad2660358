"""The catalogue of typed events: what happened, told once; sinks turn them into logs, metrics and traces.

Instants (`…_at`) are microseconds since the epoch. Fields marked as content (`prompt`, `answer`, `arguments`) hold what
people and models said; they are empty unless the setting `trace_content` is on, and never reach the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilothouse.telemetry.event import Event, content


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker holds its lease and begins to claim. `agents` are those it can run, `slots` how many runs at once."""

    name: ClassVar[str] = "worker.started"
    worker_id: str
    agents: str
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerDraining(Event):
    """A worker claims nothing more and lets its `running` attempts finish, for `drain_seconds` at most."""

    name: ClassVar[str] = "worker.draining"
    worker_id: str
    running: int
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker has ended; it gave back `released` attempts, which go on elsewhere from their last checkpoint."""

    name: ClassVar[str] = "worker.stopped"
    worker_id: str
    released: int


@dataclass(frozen=True, slots=True)
class WorkerLeaseLost(Event):
    """A worker could not renew its lease in time; its `dropped` attempts are others' now."""

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
    """The database is back, and the worker goes on."""

    name: ClassVar[str] = "worker.resumed"
    worker_id: str


@dataclass(frozen=True, slots=True)
class SwitchesSeen(Event):
    """Kill switches were tripped or reset, and the worker acts by it now; `tripped` are those that are."""

    name: ClassVar[str] = "worker.switches_seen"
    level: ClassVar[str] = "warning"
    worker_id: str
    epoch: int
    tripped: str


@dataclass(frozen=True, slots=True)
class RunClaimed(Event):
    """A worker has taken a run and begins attempt number `attempt`; it was submitted `waited_ms` before.

    `root_id` is the first run of its lineage, `traceparent` what its submitter gave, `version` that of its code.
    """

    name: ClassVar[str] = "run.claimed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    agent: str
    lane: str
    worker_id: str
    waited_ms: float
    tenant: str
    version: str
    root_id: str
    parent_id: str | None
    traceparent: str | None
    created_at: int
    claimed_at: int


@dataclass(frozen=True, slots=True)
class RunResumed(Event):
    """An attempt goes on where an earlier one ended, at `left_at` and as `left_as`: suspended, failed, lost, …"""

    name: ClassVar[str] = "run.resumed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    agent: str
    left_as: str
    left_at: int


@dataclass(frozen=True, slots=True)
class RunSettled(Event):
    """An attempt has ended as `ending`, and its run is in `state` now. `error` is the kind of its error."""

    name: ClassVar[str] = "run.settled"
    run_id: str
    attempt: int
    agent: str
    state: str
    ending: str
    duration_ms: float
    steps_executed: int
    steps_replayed: int
    settled_at: int
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
    """A step's function has returned, after `tries`; its checkpoint is about to be written."""

    name: ClassVar[str] = "step.executed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    step: str
    kind: str
    started_at: int
    duration_us: int
    tries: int


@dataclass(frozen=True, slots=True)
class StepFailed(Event):
    """A step has failed for good, after `tries`; `error` is the kind of its last error."""

    name: ClassVar[str] = "step.failed"
    level: ClassVar[str] = "debug"
    run_id: str
    attempt: int
    step: str
    kind: str
    started_at: int
    duration_us: int
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class ModelAnswered(Event):
    """A model has answered; its cost is written with the step."""

    name: ClassVar[str] = "model.answered"
    run_id: str
    agent: str
    model: str
    route: str
    tokens: int
    cost_microusd: int
    latency_ms: float
    step: str
    tokens_in: int
    tokens_out: int
    started_at: int
    prompt: str | None = content()
    answer: str | None = content()


@dataclass(frozen=True, slots=True)
class ModelDegraded(Event):
    """Little is left of a budget (`free_share` of it), so a smaller route is asked."""

    name: ClassVar[str] = "model.degraded"
    level: ClassVar[str] = "warning"
    run_id: str
    agent: str
    route: str
    smaller_route: str
    free_share: float


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    """A model was asked in vain, or passed over; the route's next one is asked."""

    name: ClassVar[str] = "model.failed"
    level: ClassVar[str] = "warning"
    run_id: str
    agent: str
    model: str
    route: str
    reason: str
    message: str
    step: str
    latency_ms: float
    started_at: int


@dataclass(frozen=True, slots=True)
class RunawaySuspected(Event):
    """A run goes round in circles or uses tokens far too fast; it waits until a person sends `signal`."""

    name: ClassVar[str] = "run.runaway_suspected"
    level: ClassVar[str] = "error"
    run_id: str
    agent: str
    reason: str
    signal: str


@dataclass(frozen=True, slots=True)
class LimitWaited(Event):
    """A limit has no room for what a run is about to use, so the run waits."""

    name: ClassVar[str] = "limit.waited"
    level: ClassVar[str] = "warning"
    run_id: str
    agent: str
    tenant: str
    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActionCapReached(Event):
    """ACTION_CAP_REACHED: an account has made all the actions of its day, so the run waits."""

    name: ClassVar[str] = "action_cap.reached"
    level: ClassVar[str] = "error"
    run_id: str
    agent: str
    tenant: str
    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class LimitOverrun(Event):
    """A call has used more than was reserved for it, so an account may have passed its limit by that much."""

    name: ClassVar[str] = "limit.overrun"
    level: ClassVar[str] = "error"
    run_id: str
    agent: str
    model: str
    reserved_microusd: int
    used_microusd: int
    reserved_tokens: int
    used_tokens: int


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """A dependency keeps failing and is left alone for a while, by all workers."""

    name: ClassVar[str] = "breaker.opened"
    level: ClassVar[str] = "error"
    breaker: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class CalibrationOff(Event):
    """What an agent says of its confidence and what people decide lie too far apart; its threshold is lifted."""

    name: ClassVar[str] = "calibration.off"
    level: ClassVar[str] = "error"
    agent: str
    error: float


@dataclass(frozen=True, slots=True)
class StabilityMoved(Event):
    """A stability plan has entered a stage or ended; `state` and `reason` say how."""

    name: ClassVar[str] = "stability.moved"
    level: ClassVar[str] = "warning"
    agent: str
    state: str
    stage: int
    reason: str


@dataclass(frozen=True, slots=True)
class ToolCalled(Event):
    """A tool has ended; its result is written with the step."""

    name: ClassVar[str] = "tool.called"
    run_id: str
    agent: str
    tool: str
    called_by: str
    outcome: str
    latency_ms: float
    step: str
    effect: str
    started_at: int
    arguments: str | None = content()


@dataclass(frozen=True, slots=True)
class ApprovalAnswered(Event):
    """What a run asked people for has been decided, or nobody did in time: `state` is approved, rejected, …"""

    name: ClassVar[str] = "approval.answered"
    run_id: str
    agent: str
    step: str
    action: str
    approval_id: str
    state: str
    asked_at: int
    decided_at: int
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class ToolPutOff(Event):
    """A tool was told to come back later, and did nothing; its run waits and calls again."""

    name: ClassVar[str] = "tool.put_off"
    level: ClassVar[str] = "warning"
    run_id: str
    agent: str
    tool: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class EffectFailed(Event):
    """A call that changes the world failed, or nobody knows whether it took place (`state` unknown)."""

    name: ClassVar[str] = "effect.failed"
    level: ClassVar[str] = "error"
    run_id: str
    agent: str
    tool: str
    effect_id: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptsReaped(Event):
    """So many `attempts` were lost with their workers; `runs` are those that go on elsewhere, or have failed by it."""

    name: ClassVar[str] = "attempts.reaped"
    level: ClassVar[str] = "warning"
    attempts: int
    runs: str


@dataclass(frozen=True, slots=True)
class AlertFired(Event):
    """The condition of a rule has held for long enough; `text` says the figures and what to do."""

    name: ClassVar[str] = "alert.fired"
    level: ClassVar[str] = "warning"
    rule: str
    subject: str
    severity: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class AlertResolved(Event):
    """The condition has been over for long enough."""

    name: ClassVar[str] = "alert.resolved"
    rule: str
    subject: str
    severity: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class ChoreFailed(Event):
    """A chore of the scheduler failed; it is tried again at its next turn."""

    name: ClassVar[str] = "chore.failed"
    level: ClassVar[str] = "error"
    chore: str
    reason: str
    exc_info: BaseException | None = None


@dataclass(frozen=True, slots=True)
class ExportFailing(Event):
    """What is sent to `destination` does not arrive. It is told once; `dropped` counts what was lost so far."""

    name: ClassVar[str] = "export.failing"
    level: ClassVar[str] = "warning"
    what: str
    destination: str
    reason: str
    dropped: int


@dataclass(frozen=True, slots=True)
class ExportRecovered(Event):
    """What is sent to `destination` arrives again; `dropped` were lost since the process began."""

    name: ClassVar[str] = "export.recovered"
    what: str
    destination: str
    dropped: int


def kinds() -> dict[str, type[Event]]:
    """All of them by their names, in the order of this module."""
    return {kind.name: kind for kind in Event.__subclasses__()}


Sink = Callable[[Event], None]


class Emitter:
    """Hands each event to every sink. `wants_content`: what people and models said belongs into events too."""

    def __init__(self, sinks: Sequence[Sink] = (), *, wants_content: bool = False) -> None:
        self._sinks = tuple(sinks)
        self.wants_content = wants_content

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink(event)
