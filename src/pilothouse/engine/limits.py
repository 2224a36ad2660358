"""Waiting for room under a limit: a moment where others may give some back soon, else suspended until there is some."""

from __future__ import annotations

import asyncio
import random

from pilothouse.control.waits import Wait
from pilothouse.domain.budgets import tell_reached
from pilothouse.domain.limits import Period, Unit
from pilothouse.engine.attempt import Attempt
from pilothouse.errors import LimitReached, ReachedLimit
from pilothouse.telemetry.events import ActionCapReached, LimitWaited

PATIENT_TRIES, PATIENT_SECONDS = 3, 0.2
"""While others hold what may be left, a call asks again so often: after so long first, twice as long each time."""

CONTENDED_SECONDS = 5.0
"""After that its run is suspended for about so long."""


async def wait_for_room(attempt: Attempt, step: str, error: LimitReached, tries: int) -> None:
    """Returns when it is worth asking again, after the `tries`th refusal; else the run is suspended."""
    reached = error.reached
    if reached.is_contended and tries <= PATIENT_TRIES:
        with attempt.busy():
            await asyncio.sleep(PATIENT_SECONDS * 2 ** (tries - 1) * (0.5 + random.random()))
        return
    _tell(attempt, error)
    if reached.is_contended:
        soon = CONTENDED_SECONDS * (0.5 + random.random())
        await attempt.park((), attempt.now_us() + int(soon * 1_000_000), str(error))
    name = f"{reached.account}/{reached.period}/{reached.unit}@{reached.epoch}"
    await attempt.park((Wait("limit", name, step),), reached.frees_at, str(error))


async def stay_within_calls(attempt: Attempt, step: str, calls: int) -> None:
    """Lets the run's `calls`th call of a tool pass; beyond the run's limit it is suspended until that is raised."""
    claim, limits = attempt.claim, attempt.services.around.run_limits
    if limits is None:
        return
    await limits.look()
    limit, epoch = limits.of(claim.run_id, claim.agent, Unit.CALLS)
    if limit is None or calls <= limit:
        return
    await limits.look(anew=True)  # who was just granted more must not be sent to sleep and woken again
    limit, epoch = limits.of(claim.run_id, claim.agent, Unit.CALLS)
    if limit is None or calls <= limit:
        return
    reached = ReachedLimit(
        f"run:{claim.run_id}", "run:*", Period.RUN, Unit.CALLS, limit, calls - 1, 0, 1, False, None, epoch
    )
    reason = tell_reached(reached)
    attempt.services.emitter.emit(LimitWaited(claim.run_id, claim.agent, claim.tenant, f"run:{claim.run_id}", reason))
    await attempt.park((Wait("limit", f"run:{claim.run_id}/run/calls@{epoch}", step),), None, reason)


def _tell(attempt: Attempt, error: LimitReached) -> None:
    claim, reached = attempt.claim, error.reached
    is_cap = reached.unit == Unit.ACTIONS and not reached.is_contended
    kind = ActionCapReached if is_cap else LimitWaited
    attempt.services.emitter.emit(kind(claim.run_id, claim.agent, claim.tenant, reached.account, str(error)))
