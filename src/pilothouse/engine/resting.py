"""Circuit breakers of tools: one that keeps failing is left alone for a while, by all workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pilothouse.control.calls import CalledBy
from pilothouse.domain.breakers import BreakerState
from pilothouse.domain.effects import Effect
from pilothouse.engine.attempt import Attempt
from pilothouse.errors import FatalError, StepError, ToolError
from pilothouse.telemetry.events import BreakerOpened

T = TypeVar("T")

REASON_SHOWN = 500


async def rest(attempt: Attempt, tool: str, effect: Effect, called_by: CalledBy) -> None:
    """Lets a call pass while the tool's breaker is closed. Else code waits for it, and a model is told by ToolError."""
    breakers = attempt.services.around.breakers
    if breakers is None or effect is Effect.PURE:
        return
    wait_us = await breakers.wait_us(f"tool:{tool}")
    if wait_us <= 0:
        return
    if called_by == "model":
        raise ToolError(f"tool {tool!r} keeps failing and rests for {wait_us / 1_000_000:.0f} s; go on without it")
    reason = f"tool {tool!r} keeps failing, so its circuit breaker is open"
    await attempt.park((), attempt.now_us() + wait_us, reason)


async def counted(attempt: Attempt, tool: str, effect: Effect, call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns; the tool's breaker counts how it ended.

    What a tool says of its arguments (ToolError, FatalError) is no failure of the dependency behind it.
    """
    breakers, name = attempt.services.around.breakers, f"tool:{tool}"
    if breakers is None or effect is Effect.PURE:
        return await call()
    try:
        result = await call()
    except StepError as error:
        if not isinstance(error.__cause__, ToolError | FatalError):
            after = await breakers.failed(name, f"{error.error_type}: {error.message}"[:REASON_SHOWN])
            if after.state == BreakerState.OPEN:
                lasts = (after.open_until - after.changed_at) / 1_000_000
                attempt.services.emitter.emit(BreakerOpened(name, lasts, after.reason))
        raise
    await breakers.succeeded(name)
    return result
