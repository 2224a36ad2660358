"""Waiting inside a run: for a signal, for an instant, for a person's word."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from pilothouse import payloads
from pilothouse.control.halts import HALTED
from pilothouse.control.waits import Wait
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.journal import HALT_KIND
from pilothouse.engine.signature import decode_result
from pilothouse.engine.steps import answer_of, store, store_error
from pilothouse.errors import WaitTimeout

SIGNAL_KIND, TIMER_KIND = "signal", "timer"


async def start_timer(attempt: Attempt, name: str, seconds: float) -> int:
    """The instant of a timer, fixed when it is first asked for."""
    await attempt.refuse_if_stopped()
    asked, stored = attempt.journal.open(name, TIMER_KIND, {"seconds": seconds})
    if stored is not None:
        return int(answer_of(stored, None))
    wake_at = attempt.now_us() + int(seconds * 1_000_000)
    await store(attempt, asked, str(wake_at))
    return wake_at


async def receive_signal(
    attempt: Attempt,
    name: str,
    adapter: TypeAdapter[Any] | None = None,
    *,
    timeout_seconds: float | None = None,
    reason: str | None = None,
) -> Any:
    """The payload of the signal `name`; until it has come the run is suspended. Raises WaitTimeout.

    With a `reason` it is the engine itself that waits: it may do so inside a step, and `name` is a whole key.
    """
    await attempt.refuse_if_stopped()
    opens = attempt.journal.open if reason is None else attempt.journal.open_beside
    asked, stored = opens(name, SIGNAL_KIND, {"signal": name, "timeout": timeout_seconds})
    if stored is not None:
        return answer_of(stored, adapter)
    signal = await attempt.services.reader.signal(attempt.claim.run_id, name)
    if signal is not None:
        await store(attempt, asked, signal["payload"])
        return decode_result(signal["payload"], adapter)
    wake_at = None if timeout_seconds is None else await start_timer(attempt, f"{name}.timeout", timeout_seconds)
    if wake_at is not None and wake_at <= attempt.now_us():
        error = WaitTimeout(asked.key, f"signal {name!r} did not come within {timeout_seconds} s")
        await store_error(attempt, asked, error)
        raise error
    park = attempt.park if reason is None else attempt.park_anywhere
    return await park((Wait("signal", name, asked.key),), wake_at, reason)


async def halt(attempt: Attempt, name: str, question: str, reason: str, evidence: Any, kind: str = HALT_KIND) -> Any:
    """Suspends the run, with the evidence in its journal, until a person sends the signal `NAME.QUESTION`; its payload.

    `name` is the whole key of the step beside which the run halts. What is kept once is not written again: a halted run
    that is woken for something else waits on.
    """
    signal = f"{name}.{question}"
    asked, stored = attempt.journal.open_beside(f"{signal}{HALTED}", kind, {"signal": signal})
    if stored is None:
        await store(attempt, asked, payloads.encode({"reason": reason, "evidence": evidence}))
    else:
        reason = payloads.decode(stored["result"])["reason"]
    return await receive_signal(attempt, signal, reason=reason)
