"""One step: its tries, its checkpoint, and the answer that a checkpoint gives on replay."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter

from pilothouse import payloads
from pilothouse.control.attempts import Checkpoint
from pilothouse.control.bookings import NO_BOOKING, Booking
from pilothouse.control.calls import StepCalls
from pilothouse.control.runs import Request
from pilothouse.domain.retries import RetryPolicy
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.failures import describe_error
from pilothouse.engine.journal import StepRequest, current_path
from pilothouse.engine.signature import StepTraits, decode_result, encode_result
from pilothouse.errors import ChildError, FatalError, ResultError, RetryLater, StepError, WaitTimeout, Withheld
from pilothouse.store.database import Row
from pilothouse.telemetry.events import StepExecuted, StepFailed


class CallRecord(NamedTuple):
    """What is written with a step that called something."""

    calls: StepCalls
    booking: Booking = NO_BOOKING


CallRecorder = Callable[[Exception | None, int], CallRecord]
"""Makes the record of a step: the error that it ended with, if any, and when it began."""


class Gate(Protocol):
    """What a function with an effect passes before each of its tries. Both raise Withheld where it may not start."""

    async def open(self) -> None:
        """Returns once it is known whether the function may start."""

    def check(self) -> None:
        """Called in the very moment before the function, in its own thread."""


class StepCall(NamedTuple):
    """The tries of one step. Raises Withheld where its `gate` lets a try not start; then none is under way."""

    attempt: Attempt
    asked: StepRequest
    function: Callable[..., Any]
    traits: StepTraits
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    retry: RetryPolicy
    timeout_seconds: float | None
    record: CallRecorder | None = None
    gate: Gate | None = None
    may_put_off: bool = False

    async def run(self) -> str:
        """The result as JSON. Raises StepError once it has failed for good, and RetryLater where it may be put off."""
        await self._pass_gate()
        started_at, tries = self.attempt.now_us(), 0
        while True:
            tries += 1
            try:
                value = await (self._call() if self.timeout_seconds is None else self._call_in_time())
            except Withheld:
                raise
            except Exception as error:  # user code; recorded or tried again
                if self.may_put_off and isinstance(error, RetryLater):
                    raise
                if isinstance(error, FatalError) or not self.retry.is_worth_another_try(error, tries):
                    await self._give_up(error, started_at, tries)
                await asyncio.sleep(self.retry.backoff.delay_seconds(tries, random.random()))
                await self._pass_gate()
                continue
            text = self.attempt.redact(self._encode(value))
            await self._finish(text, started_at, tries)
            return text

    async def _pass_gate(self) -> None:
        if self.gate is not None:
            await self.gate.open()

    def _encode(self, value: Any) -> str:
        try:
            return encode_result(value, self.traits.output, f"step {self.asked.key!r}")
        except ResultError as error:
            error.step = self.asked.key
            raise

    async def _call_in_time(self) -> Any:
        limit = asyncio.timeout(self.timeout_seconds)
        try:
            async with limit:
                return await self._call()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"no result within {self.timeout_seconds} s") from error

    async def _call(self) -> Any:
        token = current_path.set(self.asked.key)
        try:
            function = self.function if self.gate is None else self._checked
            if self.traits.is_async:
                return await function(*self.args, **self.kwargs)
            value = await self.attempt.services.threads.run(function, *self.args, **self.kwargs)
            return await value if isinstance(value, Awaitable) else value
        finally:
            current_path.reset(token)

    def _checked(self, *args: Any, **kwargs: Any) -> Any:
        """The function, or Withheld in the last moment."""
        assert self.gate is not None
        self.gate.check()
        return self.function(*args, **kwargs)

    async def _finish(self, result: str, started_at: int, tries: int) -> None:
        attempt = self.attempt
        attempt.journal.executed += 1
        checkpoint = make_checkpoint(attempt, self.asked, result=result, started_at=started_at, tries=tries)
        attempt.services.emitter.emit(StepExecuted(*self._told(checkpoint)))
        await attempt.services.writer.checkpoint(self._with_calls(checkpoint, None))

    def _told(self, checkpoint: Checkpoint) -> tuple[str, int, str, str, int, int, int]:
        """What events tell of the step, in the order of their fields."""
        run_id, attempt, started_at = checkpoint.run_id, checkpoint.attempt, checkpoint.started_at
        took_us = checkpoint.finished_at - started_at
        return run_id, attempt, self.asked.key, self.asked.kind, started_at, took_us, checkpoint.tries

    def _with_calls(self, checkpoint: Checkpoint, error: Exception | None) -> Checkpoint:
        if self.record is None:
            return checkpoint
        record = self.record(error, checkpoint.started_at)
        return checkpoint._replace(calls=record.calls, booking=record.booking)

    async def _give_up(self, error: Exception, started_at: int, tries: int) -> None:
        text = describe_error(error)
        checkpoint = make_checkpoint(self.attempt, self.asked, error=text, started_at=started_at, tries=tries)
        self.attempt.services.emitter.emit(StepFailed(*self._told(checkpoint), type(error).__name__))
        await self.attempt.services.writer.checkpoint(self._with_calls(checkpoint, error))
        raise StepError(self.asked.key, type(error).__name__, str(error)) from error


async def store(
    attempt: Attempt,
    asked: StepRequest,
    result: str,
    *,
    children: tuple[Request, ...] = (),
    memories: tuple[tuple[str, str], ...] = (),
    booking: Booking = NO_BOOKING,
) -> None:
    """Keeps what an operation without tries came to, and what goes with it."""
    with attempt.busy():
        checkpoint = make_checkpoint(attempt, asked, result=result, started_at=attempt.now_us(), tries=1)
        await attempt.services.writer.checkpoint(
            checkpoint._replace(children=children, memories=memories, booking=booking)
        )


async def store_error(attempt: Attempt, asked: StepRequest, error: Exception) -> None:
    """Keeps that an operation failed, so that it fails in the same way on replay."""
    with attempt.busy():
        checkpoint = make_checkpoint(attempt, asked, error=describe_error(error), started_at=attempt.now_us(), tries=1)
        await attempt.services.writer.checkpoint(checkpoint)


def make_checkpoint(
    attempt: Attempt,
    asked: StepRequest,
    *,
    result: str | None = None,
    error: str | None = None,
    started_at: int,
    tries: int,
) -> Checkpoint:
    claim = attempt.claim
    return Checkpoint(
        run_id=claim.run_id,
        attempt=claim.attempt,
        key=asked.key,
        kind=asked.kind,
        request_hash=asked.hash,
        request=attempt.redact(asked.text),
        state="succeeded" if error is None else "failed",
        result=attempt.redact(result),
        error=attempt.redact(error),
        tries=tries,
        state_version=attempt.agent.version.newest,
        started_at=started_at,
        finished_at=attempt.now_us(),
    )


def answer_of(stored: Row, adapter: TypeAdapter[Any] | None) -> Any:
    """A checkpoint's answer: the result, or the failure that the handler went past before."""
    if stored["state"] == "succeeded":
        return decode_result(stored["result"], adapter)
    told = payloads.decode(stored["error"])
    match told["type"]:
        case "WaitTimeout":
            raise WaitTimeout(stored["key"], told["message"])
        case "ChildError":
            raise ChildError(stored["key"], told["run_id"], told["state"], told["message"])
        case _:
            raise StepError(stored["key"], told["type"], told["message"])
