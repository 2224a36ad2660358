"""One attempt as a pipeline: load, admit, call, settle, emit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pilothouse import payloads
from pilothouse.control.attempts import ClaimedRun, Settlement
from pilothouse.domain.outcomes import Cancel, Fatal, Retry, Snooze
from pilothouse.domain.runs import Limits, Spent, next_state
from pilothouse.engine.agent import Agent
from pilothouse.engine.attempt import Attempt, Isolation, Services, StopReason
from pilothouse.engine.endings import Ended
from pilothouse.engine.failures import describe_error, failed_steps
from pilothouse.engine.journal import Journal
from pilothouse.engine.signature import encode_result
from pilothouse.engine.sync import make_context
from pilothouse.errors import (
    AttemptTimeout,
    FatalError,
    InvalidInput,
    LeaseLost,
    ResultError,
    RunError,
    RunTimeout,
    StateMigrationError,
    Stopped,
    Suspend,
)
from pilothouse.telemetry import tracing
from pilothouse.telemetry.events import HandlerAbandoned, RunDropped, RunResumed, RunSettled

OnEnded = Callable[[Ended], None]

TIMED_OUT: StopReason = "timed_out"
WORKED_OUT: StopReason = "worked_out"

TIMER_GRAIN_SECONDS = 0.01
"""A timer that fires so much too early is taken to be right."""

NOT_ITS_OWN = "the attempt was not this worker's any more"


@dataclass(frozen=True, slots=True)
class Hooks:
    """How the worker keeps track of an attempt. `on_called`: the handler has ended, nothing is written yet; `on_done`:
    its settlement is durable, or is not its own any more.
    """

    on_loaded: Callable[[Attempt], None]
    on_called: Callable[[Attempt], None]
    on_done: Callable[[Attempt], None]


# The pipeline is made of callbacks: no task but the handler's own, which costs half as much as one around it, and no
# part of it shares a task with agent code.


def start(claim: ClaimedRun, agent: Agent, services: Services, hooks: Hooks) -> asyncio.Task[Attempt] | None:
    """The whole pipeline of one attempt; whatever goes wrong in it, the attempt is settled.

    Returns the task that loads what earlier attempts have left, if there were any.
    """
    if claim.attempt == 1:
        _begin(Attempt(claim, agent, services, Journal(())), hooks)
        return None
    loading = asyncio.get_running_loop().create_task(load(claim, agent, services))
    loading.add_done_callback(lambda task: None if task.cancelled() else _begin(task.result(), hooks))
    return loading


async def load(claim: ClaimedRun, agent: Agent, services: Services) -> Attempt:
    """The attempt with the checkpoints of those before it."""
    past = await services.reader.journal(claim)
    attempt = Attempt(claim, agent, services, Journal(past.checkpoints, lines_logged=past.lines))
    attempt.worked_us = past.worked_us
    if past.left_as:
        services.emitter.emit(RunResumed(claim.run_id, claim.attempt, claim.agent, past.left_as, past.left_at))
    return attempt


def _begin(attempt: Attempt, hooks: Hooks) -> None:
    hooks.on_loaded(attempt)
    ended = admit(attempt)
    if ended is None:
        execute(attempt, partial(_end, attempt, hooks))
    else:
        _end(attempt, hooks, ended)


def _end(attempt: Attempt, hooks: Hooks, ended: Ended) -> None:
    hooks.on_called(attempt)
    if attempt.stop_reason == "lost":
        _drop(attempt, NOT_ITS_OWN)
        hooks.on_done(attempt)
    else:
        _write(attempt, hooks, settle(attempt, ended))


def _write(attempt: Attempt, hooks: Hooks, settlement: Settlement, *, is_last: bool = False) -> None:
    on_settled = partial(_written, attempt, hooks, settlement, is_last)
    attempt.services.writer.settle(settlement, on_settled)


def _written(attempt: Attempt, hooks: Hooks, settlement: Settlement, is_last: bool, answer: bool | Exception) -> None:
    """A result that the store does not take fails the run, and that failure is plain text, which it does take."""
    is_refused = isinstance(answer, Exception) and not isinstance(answer, LeaseLost)
    if is_refused and not is_last:
        error = ResultError(f"the result cannot be stored: {answer}")
        _write(attempt, hooks, settle(attempt, Ended("fatal", error=error)), is_last=True)
        return
    if answer is True:
        _emit_settled(attempt, settlement)
    else:
        _drop(attempt, f"its end could not be written: {answer}" if is_refused else NOT_ITS_OWN)
    hooks.on_done(attempt)


def admit(attempt: Attempt) -> Ended | None:
    """An ending that needs no call: stopped or cancelled before it began, or past its deadline."""
    deadline = attempt.claim.deadline_at
    if attempt.stop_reason is not None:
        return _stopped(attempt)
    if attempt.claim.is_cancelling:
        return Ended("cancelled")
    if deadline is not None and attempt.now_us() >= deadline:
        return _past_deadline(attempt)
    return None


def execute(attempt: Attempt, on_ended: OnEnded) -> None:
    """Runs the agent's code, here or in a process of its own."""
    isolation = attempt.services.isolation
    if isolation is not None and attempt.agent.options.isolation == "process":
        # An import is no part of the attempt's time.
        isolation.when_ready(attempt.agent, lambda: _call_apart(attempt, isolation, on_ended))
    else:
        call(attempt, on_ended)


def _call_apart(attempt: Attempt, isolation: Isolation, on_ended: OnEnded) -> None:
    if attempt.stop_reason is not None:
        on_ended(_stopped(attempt))
    else:
        _run(attempt, isolation.run(attempt), on_ended, is_stoppable=True)


def call(attempt: Attempt, on_ended: OnEnded) -> None:
    """Runs the handler until it ends or is stopped; one that does not stop is abandoned after a while."""
    _run(attempt, _handle(attempt), on_ended, is_stoppable=attempt.agent.is_async)


def _run(attempt: Attempt, handling: Coroutine[Any, Any, Any], on_ended: OnEnded, *, is_stoppable: bool) -> None:
    """Until the handling has ended, or its time is over; `is_stoppable` where cancelling it does stop it."""
    task = attempt.loop.create_task(handling)
    if is_stoppable:
        attempt.own(task)
    attempt.timer = attempt.loop.call_later(_time_limit(attempt)[0], _time_over, attempt, attempt.loop.time())
    attempt.on_over = partial(_over, attempt, task, on_ended)
    task.add_done_callback(partial(_note_end, attempt))


def _time_over(attempt: Attempt, began: float) -> None:
    """Stops the attempt, unless the time that its run may work was prolonged meanwhile."""
    seconds, reason = _time_limit(attempt, worked=attempt.loop.time() - began)
    if seconds > TIMER_GRAIN_SECONDS:
        attempt.timer = attempt.loop.call_later(seconds, _time_over, attempt, began)
    else:
        attempt.stop(reason)


def _over(attempt: Attempt, task: asyncio.Task[Any], on_ended: OnEnded) -> None:
    if attempt.timer is not None:
        attempt.timer.cancel()
    if task.done():
        ended = _ended(attempt, task)
        attempt.close()
        on_ended(ended)
    else:
        _abandon(attempt)
        on_ended(_stopped(attempt))


def _time_limit(attempt: Attempt, *, worked: float = 0.0) -> tuple[float, StopReason]:
    """What comes first: the attempt's time-out, the run's deadline, or the end of the time that it may work. `worked`
    is how long this attempt has worked by now.
    """
    limit, reason = min((attempt.timeout_seconds - worked, TIMED_OUT), (attempt.work_left_seconds - worked, WORKED_OUT))
    deadline = attempt.claim.deadline_at
    left = None if deadline is None else max(0.0, (deadline - attempt.now_us()) / 1_000_000)
    if left is not None and left <= limit:
        return left, "past_deadline"
    return limit, reason


async def _handle(attempt: Attempt) -> Any:
    """The handler itself, and what else is user code. What would end the process ends the attempt instead."""
    agent = attempt.agent
    tracing.enter(attempt.claim, attempt.services.around.trace_share)
    try:
        ended = migrate_state(attempt)
        if ended is not None:
            return ended
        try:
            arguments = agent.signature.arguments(agent.name, payloads.decode(attempt.claim.input))
        except InvalidInput as error:
            return Ended("fatal", error=error)
        positional = (make_context(attempt),) if agent.signature.takes_context else ()
        if agent.is_async:
            return await agent.handler(*positional, **arguments)
        return await attempt.services.threads.run(agent.handler, *positional, **arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        raise RunError(f"the handler tried to end the process with {type(error).__name__}") from error


def migrate_state(attempt: Attempt) -> Ended | None:
    """Brings the checkpoints of older state versions to the agent's; an ending where its migrations fail."""
    version, options = attempt.agent.version, attempt.agent.options
    try:
        attempt.journal.migrate(options.migrations, to_version=version.newest)
    except Exception as error:  # noqa: BLE001 - user code; recorded as the run's error
        return Ended("fatal", error=StateMigrationError(version.name, version.newest, error))
    return None


def _abandon(attempt: Attempt) -> None:
    claim = attempt.claim
    attempt.services.emitter.emit(
        HandlerAbandoned(claim.run_id, claim.attempt, claim.agent, attempt.stop_reason or "unknown")
    )


def _note_end(attempt: Attempt, task: asyncio.Task[Any]) -> None:
    """Takes the outcome even where nobody waits for it any more, so that asyncio does not complain about it."""
    if not task.cancelled():
        task.exception()
    attempt.end()


def _ended(attempt: Attempt, task: asyncio.Task[Any]) -> Ended:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if attempt.stop_reason is not None:
        return _stopped(attempt)
    if error is None:
        return _returned(attempt, task.result())
    if any(isinstance(cause, LeaseLost) for cause in _chain(error)):
        attempt.stop_reason = "lost"
        return Ended("lost")
    return _raised(attempt, error)


def _stopped(attempt: Attempt) -> Ended:
    """What an attempt that was stopped ends as; what its handler did with the exception does not count."""
    match attempt.stop_reason:
        case "suspended":
            return Ended("suspended")
        case "cancelled":
            return Ended("cancelled", reason=attempt.stop_note or None)
        case "released":
            return Ended("released", reason=attempt.stop_note or None)
        case "past_deadline":
            return _past_deadline(attempt)
        case "worked_out":
            return _worked_out(attempt)
        case "timed_out":
            message = f"the attempt did not end within {attempt.timeout_seconds:g} s"
            return Ended("failed", error=AttemptTimeout(message))
        case _:
            return Ended("lost")


def _worked_out(attempt: Attempt) -> Ended:
    return Ended(
        "fatal",
        error=RunTimeout(
            "the run has worked for as long as it may (max_run_seconds); give it more: "
            f"`pilothouse budget grant {attempt.claim.run_id} --seconds 3600`, then redrive it"
        ),
    )


def _past_deadline(attempt: Attempt) -> Ended:
    return Ended("fatal", error=RunTimeout("the run did not end before its deadline; see run_timeout_seconds"))


def _returned(attempt: Attempt, value: Any) -> Ended:
    match value:
        case Ended():
            return value
        case Retry():
            error = RunError(value.reason)
            return Ended("failed", error=error, reason=value.reason, delay_seconds=value.after_seconds)
        case Snooze():
            return Ended("snoozed", reason=value.reason or None, delay_seconds=value.seconds)
        case Fatal():
            return Ended("fatal", error=FatalError(value.reason), reason=value.reason)
        case Cancel():
            return Ended("cancelled", reason=value.reason)
        case _:
            return _succeeded(attempt, value)


def _succeeded(attempt: Attempt, value: Any) -> Ended:
    try:
        where = f"agent {attempt.claim.agent!r}"
        return Ended("succeeded", output=encode_result(value, attempt.agent.signature.output, where))
    except FatalError as error:
        return Ended("fatal", error=error)


def _raised(attempt: Attempt, error: BaseException) -> Ended:
    if isinstance(error, (asyncio.CancelledError, Stopped, Suspend)):
        error = RunError("the handler cancelled itself")
    causes = _chain(error)
    is_fatal = any(isinstance(cause, (FatalError, *attempt.agent.options.fatal)) for cause in causes)
    return Ended("fatal" if is_fatal else "failed", error=error)


def _chain(error: BaseException) -> list[BaseException]:
    """An error, what caused it, and the parts of groups."""
    parts = [part for sub in error.exceptions for part in _chain(sub)] if isinstance(error, BaseExceptionGroup) else []
    return [error, *parts, *(_chain(error.__cause__) if error.__cause__ else [])]


def settle(attempt: Attempt, ended: Ended) -> Settlement:
    """The settlement of an attempt: its next state by the rules of `domain.runs`, and what its run waits for."""
    claim, options = attempt.claim, attempt.agent.options
    limits = Limits(claim.max_attempts, claim.max_losses, options.backoff)
    spent = Spent(claim.failures, claim.losses)
    following = next_state(ended.ending, spent, limits, delay_seconds=ended.delay_seconds, jitter=random.random())
    steps = failed_steps(ended.error) if ended.error is not None else ()
    is_suspended = ended.ending == "suspended"
    return Settlement(
        run_id=claim.run_id,
        attempt=claim.attempt,
        parent_id=claim.parent_id,
        ending=ended.ending,
        next=following,
        output=attempt.redact(ended.output),
        error=_described(attempt, ended.error, steps),
        reason=_why_parked(attempt) if is_suspended else ended.reason,
        failed_steps=steps,
        wake_at=_wake_at(attempt) if is_suspended else None,
        waits=tuple(wait for parked in attempt.parked for wait in parked.waits) if is_suspended else (),
        steps_executed=attempt.journal.executed,
        steps_replayed=attempt.journal.replayed,
        has_asked=attempt.has_asked,
    )


def _described(attempt: Attempt, error: BaseException | None, steps: Sequence[str]) -> str | None:
    if error is None:
        return None
    return attempt.redact(describe_error(error, step=steps[0] if steps else None))


def _why_parked(attempt: Attempt) -> str | None:
    reasons = dict.fromkeys(parked.reason for parked in attempt.parked if parked.reason)
    return "; ".join(reasons) or None


def _wake_at(attempt: Attempt) -> int | None:
    """The earliest timer of what is waited for, and the run's deadline."""
    instants = [parked.wake_at for parked in attempt.parked if parked.wake_at is not None]
    if attempt.claim.deadline_at is not None:
        instants.append(attempt.claim.deadline_at)
    return min(instants, default=None)


def _emit_settled(attempt: Attempt, settlement: Settlement) -> None:
    claim, now = attempt.claim, attempt.now_us()
    attempt.services.emitter.emit(
        RunSettled(
            run_id=claim.run_id,
            attempt=claim.attempt,
            agent=claim.agent,
            state=settlement.next.state,
            ending=settlement.ending,
            duration_ms=(now - claim.claimed_at) / 1000,
            steps_executed=settlement.steps_executed,
            steps_replayed=settlement.steps_replayed,
            settled_at=now,
            error=payloads.decode(settlement.error)["type"] if settlement.error else None,
        )
    )


def _drop(attempt: Attempt, reason: str) -> None:
    claim = attempt.claim
    attempt.services.emitter.emit(RunDropped(claim.run_id, claim.attempt, claim.agent, reason))
