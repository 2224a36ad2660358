"""The state machine of a run, and what each way of ending an attempt does to it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, assert_never

from pilothouse.domain.retries import Backoff

PRIORITIES = range(10)
"""Allowed priorities within a lane; higher goes first."""


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUSPENDED = "suspended"
    LOST = "lost"
    CANCELLED = "cancelled"


TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.WAITING: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.SUCCEEDED, RunState.WAITING, RunState.QUEUED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.CANCELLED: frozenset(),
}
"""Every allowed change of state; the database refuses any other by trigger."""


# Named tuples and not dataclasses, because they are made for every attempt, and cost half as much.


class Limits(NamedTuple):
    """What a run may spend: attempts that end in failure, and attempts lost with their worker."""

    max_attempts: int
    max_losses: int
    backoff: Backoff


class Spent(NamedTuple):
    """What a run has spent so far."""

    failures: int
    losses: int


class Next(NamedTuple):
    """Where a run goes when its attempt ends. `delay_seconds` counts from the settle; None: not queued."""

    state: RunState
    action: str
    delay_seconds: float | None = None


Ending = Literal["succeeded", "failed", "fatal", "lost", "cancelled", "snoozed", "released", "suspended"]


def next_state(ending: Ending, spent: Spent, limits: Limits, *, delay_seconds: float | None, jitter: float) -> Next:
    """The state that follows an attempt that ended in `ending`.

    `delay_seconds` is what the agent asked for (Retry, Snooze), else None. `jitter` is in [0, 1).
    """
    match ending:
        case "succeeded":
            return Next(RunState.SUCCEEDED, "run.succeeded")
        case "cancelled":
            return Next(RunState.CANCELLED, "run.cancelled")
        case "suspended":
            return Next(RunState.WAITING, "run.suspended")
        case "fatal":
            return Next(RunState.FAILED, "run.failed")
        case "snoozed":
            return Next(RunState.QUEUED, "run.snoozed", delay_seconds or 0.0)
        case "released":
            return Next(RunState.QUEUED, "run.released", 0.0)
        case "failed":
            return _after_failure(spent, limits, delay_seconds, jitter)
        case "lost":
            return _after_loss(spent, limits, jitter)
        case _:
            assert_never(ending)


def outcome_of(ending: Ending) -> AttemptOutcome:
    """How the attempt itself is recorded."""
    match ending:
        case "fatal":
            return AttemptOutcome.FAILED
        case "snoozed" | "released":
            return AttemptOutcome.SUSPENDED
        case "succeeded" | "failed" | "lost" | "cancelled" | "suspended":
            return AttemptOutcome(ending)
        case _:
            assert_never(ending)


def _after_failure(spent: Spent, limits: Limits, delay_seconds: float | None, jitter: float) -> Next:
    failures = spent.failures + 1
    if failures >= limits.max_attempts:
        return Next(RunState.FAILED, "run.failed")
    delay = limits.backoff.delay_seconds(failures, jitter) if delay_seconds is None else delay_seconds
    return Next(RunState.QUEUED, "run.retried", delay)


def _after_loss(spent: Spent, limits: Limits, jitter: float) -> Next:
    """The first loss costs no wait: most losses are a deployment or a killed machine, not the run's doing."""
    losses = spent.losses + 1
    if losses >= limits.max_losses:
        return Next(RunState.FAILED, "run.failed")
    return Next(RunState.QUEUED, "run.lost", limits.backoff.delay_seconds(losses - 1, jitter) if losses > 1 else 0.0)
