"""The context: what agent code sees of its run. A durable operation that finished answers from the journal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, overload

from pydantic import TypeAdapter

from pilothouse import payloads
from pilothouse.clock import to_datetime
from pilothouse.control.attempts import Checkpoint, LogLine
from pilothouse.control.runs import Request
from pilothouse.control.waits import Wait
from pilothouse.domain.retries import RetryPolicy
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.failures import describe_error
from pilothouse.engine.journal import StepRequest, current_path
from pilothouse.engine.signature import StepTraits, decode_result, encode_result, step_traits
from pilothouse.errors import ChildError, FatalError, ResultError, StepError, WaitTimeout
from pilothouse.store.database import Row
from pilothouse.telemetry.events import StepExecuted

T = TypeVar("T")

ONCE = RetryPolicy()
CHILD_KIND, RESULT_KIND, SIGNAL_KIND, STEP_KIND, TIMER_KIND = "child", "result", "signal", "step", "timer"


class Context:
    """What an agent's handler gets as its first argument.

    Every operation takes a name, unique within the run: it is the key under which the result is kept. Code between
    operations runs again after a crash or a wait, so it must not touch the outside world; a step does that.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @property
    def run_id(self) -> str:
        return self._attempt.claim.run_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._attempt.claim.attempt

    @property
    def agent(self) -> str:
        return self._attempt.claim.agent

    @property
    def tenant(self) -> str:
        return self._attempt.claim.tenant

    @property
    def is_replaying(self) -> bool:
        """Whether answers of earlier attempts are still to come."""
        return self._attempt.journal.is_replaying

    def now(self) -> datetime:
        """The database's time, aware, in UTC. It differs between attempts: put it into a step to keep it."""
        return to_datetime(self._attempt.now_us())

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        retry: RetryPolicy = ...,
        timeout_seconds: float | None = ...,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy = ...,
        timeout_seconds: float | None = ...,
        **kwargs: Any,
    ) -> T: ...

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        retry: RetryPolicy = ONCE,
        timeout_seconds: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Runs `function(*args, **kwargs)` until it has succeeded once; from then on its stored result answers.

        A plain function runs in a thread. The result comes back as JSON gives it, in the type of the function's
        return annotation. `timeout_seconds` bounds each try; `retry` says how often and on which errors to try.
        Raises StepError once the step has failed for good, DuplicateStep for a name used before, DivergenceError
        where an earlier attempt finished this step with another request, ResultError for a result that is not JSON.
        """
        attempt = self._attempt
        if attempt.stop_reason is not None:
            await attempt.refuse_if_stopped()
        traits = step_traits(function)
        request = {"function": traits.name, "args": args, "kwargs": kwargs}
        asked, stored = attempt.journal.open(name, STEP_KIND, request)
        if stored is not None:
            return _answer(stored, traits.output)
        with attempt.busy():
            call = _StepCall(attempt, asked, function, traits, args, kwargs, retry, timeout_seconds)
            return decode_result(await call.run(), traits.output)

    async def sleep(
        self, name: str, *, seconds: float = 0.0, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Suspends the run for that long, without holding a slot. The instant is fixed when it is first reached."""
        duration = seconds + 60 * (minutes + 60 * (hours + 24 * days))
        wake_at = await self._timer(name, duration)
        if wake_at > self._attempt.now_us():
            await self._attempt.park((), wake_at)

    async def wait_for(self, name: str, *, timeout_seconds: float | None = None, returns: Any = Any) -> Any:
        """Suspends the run until the signal `name` is sent to it; its payload, in the type `returns`.

        A signal that was sent before is taken at once. Raises WaitTimeout after `timeout_seconds`.
        """
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(name, SIGNAL_KIND, {"signal": name, "timeout": timeout_seconds})
        adapter = None if returns is Any else TypeAdapter(returns)
        if stored is not None:
            return _answer(stored, adapter)
        signal = await self._attempt.services.reader.signal(self.run_id, name)
        if signal is not None:
            await self._store(asked, signal["payload"])
            return decode_result(signal["payload"], adapter)
        wake_at = None if timeout_seconds is None else await self._timer(f"{name}.timeout", timeout_seconds)
        if wake_at is not None and wake_at <= self._attempt.now_us():
            error = WaitTimeout(asked.key, f"signal {name!r} did not come within {timeout_seconds} s")
            await self._store_error(asked, error)
            raise error
        return await self._attempt.park((Wait("signal", name, asked.key),), wake_at)

    async def start(
        self,
        agent: str,
        input: Any = None,
        *,
        name: str | None = None,
        lane: str | None = None,
        priority: int | None = None,
        delay_seconds: float = 0.0,
    ) -> Child:
        """Starts a child run, once; await its outcome with `result()` of what this returns.

        `name` is the key of this operation, by default the agent's name. The child comes into being in the same
        transaction as the checkpoint. Raises NotFound for an unknown agent and InvalidInput for a wrong input.
        """
        children = await self.start_many(
            name or agent,
            agent,
            [{} if input is None else input],
            lane=lane,
            priority=priority,
            delay_seconds=delay_seconds,
        )
        return children[0]

    async def start_many(
        self,
        name: str,
        agent: str,
        inputs: Sequence[Any],
        *,
        lane: str | None = None,
        priority: int | None = None,
        delay_seconds: float = 0.0,
    ) -> list[Child]:
        """Starts one child run per input, all in one transaction; they come in the order of the inputs."""
        plain = [payloads.decode(encode_result(value, None, f"start {name!r}")) for value in inputs]
        request = {"agent": agent, "inputs": plain, "lane": lane, "priority": priority, "delay": delay_seconds}
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(name, CHILD_KIND, request)
        if stored is not None:
            return self._children(name, _answer(stored, None))
        available_at = self._attempt.now_us() + int(delay_seconds * 1_000_000) if delay_seconds else None
        wanted = tuple(
            Request(
                agent=agent,
                input=value,
                principal=f"run:{self.run_id}",
                lane=lane,
                priority=priority,
                available_at=available_at,
                tenant=self.tenant,
                parent_id=self.run_id,
                root_id=self._attempt.claim.root_id,
            )
            for value in plain
        )
        ids = [request.id for request in wanted]
        await self._store(asked, payloads.encode(ids), children=wanted)
        return self._children(name, ids)

    async def results(self, name: str, children: Sequence[Child]) -> list[Any]:
        """Suspends the run until all `children` have ended; their outputs, in order.

        Wakes once, however many there are. Raises ChildError for the first one that failed or was cancelled.
        """
        ids = [child.run_id for child in children]
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(name, RESULT_KIND, ids)
        if stored is not None:
            return list(_answer(stored, None))
        states = await self._attempt.services.reader.children(ids)
        ended = {row["id"]: row for row in states if row["state"] in TERMINAL}
        waits = tuple(Wait("child", id, asked.key) for id in dict.fromkeys(ids) if id not in ended)
        if waits:
            await self._attempt.park(waits, None)
        return await self._collect(asked, [ended[id] for id in ids])

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Writes a line to the run's own log. Not written again while earlier attempts are replayed."""
        if self._attempt.stop_reason is not None or not self._attempt.journal.should_log():
            return
        claim = self._attempt.claim
        text = encode_result(fields, None, "log")
        line = LogLine(claim.run_id, claim.attempt, self._attempt.now_us(), level, message.replace("\x00", ""), text)
        self._attempt.services.writer.log(line)

    def progress(self, done: int, total: int | None = None) -> None:
        """Tells how far the run is; only the latest is kept."""
        if self._attempt.stop_reason is None:
            self._attempt.services.writer.progress(self._attempt.claim.key, done, total)

    def _children(self, name: str, ids: Sequence[str]) -> list[Child]:
        single = len(ids) == 1
        return [Child(id, name if single else f"{name}[{place}]", self) for place, id in enumerate(ids)]

    async def _collect(self, asked: StepRequest, ended: Sequence[Row]) -> list[Any]:
        for row in ended:
            if row["state"] != RunState.SUCCEEDED:
                error = ChildError(asked.key, row["id"], row["state"], _message(row["error"]))
                await self._store_error(asked, error)
                raise error
        outputs = [payloads.decode(row["output"]) for row in ended]
        await self._store(asked, payloads.encode(outputs))
        return outputs

    async def _timer(self, name: str, seconds: float) -> int:
        """The instant of a timer, fixed when it is first asked for."""
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(name, TIMER_KIND, {"seconds": seconds})
        if stored is not None:
            return int(_answer(stored, None))
        wake_at = self._attempt.now_us() + int(seconds * 1_000_000)
        await self._store(asked, str(wake_at))
        return wake_at

    async def _store(self, asked: StepRequest, result: str, *, children: tuple[Request, ...] = ()) -> None:
        with self._attempt.busy():
            now = self._attempt.now_us()
            checkpoint = _checkpoint(self._attempt, asked, result=result, started_at=now, tries=1)
            await self._attempt.services.writer.checkpoint(checkpoint._replace(children=children))

    async def _store_error(self, asked: StepRequest, error: Exception) -> None:
        with self._attempt.busy():
            now = self._attempt.now_us()
            text = describe_error(error)
            checkpoint = _checkpoint(self._attempt, asked, error=text, started_at=now, tries=1)
            await self._attempt.services.writer.checkpoint(checkpoint)


@dataclass(frozen=True, slots=True)
class Child:
    """A child run that this run has started."""

    run_id: str
    name: str
    _context: Context

    async def result(self) -> Any:
        """Suspends the run until the child has ended; its output. Raises ChildError where it did not succeed."""
        outputs = await self._context.results(f"{self.name}.result", [self])
        return outputs[0]


class _StepCall(NamedTuple):
    """The tries of one step."""

    attempt: Attempt
    asked: StepRequest
    function: Callable[..., Any]
    traits: StepTraits
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    retry: RetryPolicy
    timeout_seconds: float | None

    async def run(self) -> str:
        started_at, tries = self.attempt.now_us(), 0
        while True:
            tries += 1
            try:
                value = await (self._call() if self.timeout_seconds is None else self._call_in_time())
            except Exception as error:  # noqa: BLE001 - user code; recorded or tried again
                if isinstance(error, FatalError) or not self.retry.is_worth_another_try(error, tries):
                    await self._give_up(error, started_at, tries)
                await asyncio.sleep(self.retry.backoff.delay_seconds(tries, random.random()))
                continue
            text = self._encode(value)
            await self._finish(text, started_at, tries)
            return text

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
            if self.traits.is_async:
                return await self.function(*self.args, **self.kwargs)
            value = await self.attempt.services.threads.run(self.function, *self.args, **self.kwargs)
            return await value if isinstance(value, Awaitable) else value
        finally:
            current_path.reset(token)

    async def _finish(self, result: str, started_at: int, tries: int) -> None:
        attempt = self.attempt
        attempt.journal.executed += 1
        checkpoint = _checkpoint(attempt, self.asked, result=result, started_at=started_at, tries=tries)
        attempt.services.emitter.emit(
            StepExecuted(checkpoint.run_id, checkpoint.attempt, self.asked.key, checkpoint.finished_at - started_at)
        )
        await attempt.services.writer.checkpoint(checkpoint)

    async def _give_up(self, error: Exception, started_at: int, tries: int) -> None:
        text = describe_error(error)
        checkpoint = _checkpoint(self.attempt, self.asked, error=text, started_at=started_at, tries=tries)
        await self.attempt.services.writer.checkpoint(checkpoint)
        raise StepError(self.asked.key, type(error).__name__, str(error)) from error


def _checkpoint(
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
        request=asked.text,
        state="succeeded" if error is None else "failed",
        result=result,
        error=error,
        tries=tries,
        state_version=attempt.agent.version.newest,
        started_at=started_at,
        finished_at=attempt.now_us(),
    )


def _answer(stored: Row, adapter: TypeAdapter[Any] | None) -> Any:
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


def _message(error: str | None) -> str:
    return str(payloads.decode(error)["message"]) if error else "no reason was recorded"
