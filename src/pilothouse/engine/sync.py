"""The context of plain handlers: the same operations, called from the handler's thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from datetime import datetime
from typing import Any, TypeVar, Unpack, overload

from pilothouse.domain.retries import RetryPolicy
from pilothouse.engine.approvals import ApprovalArguments, Approved
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.context import ONCE, Child, Context
from pilothouse.engine.models import ModelOptions
from pilothouse.engine.tools import Tool
from pilothouse.errors import Stopped, Suspend

T = TypeVar("T")


def make_context(attempt: Attempt) -> Context | SyncContext:
    context = Context(attempt)
    return context if attempt.agent.is_async else SyncContext(attempt, context)


class SyncContext:
    """What a plain `def` handler gets: see `Context`; nothing here is awaited."""

    def __init__(self, attempt: Attempt, context: Context) -> None:
        self._attempt = attempt
        self._context = context

    @property
    def run_id(self) -> str:
        return self._context.run_id

    @property
    def input(self) -> Any:
        return self._context.input

    @property
    def attempt(self) -> int:
        return self._context.attempt

    @property
    def agent(self) -> str:
        return self._context.agent

    @property
    def tenant(self) -> str:
        return self._context.tenant

    @property
    def is_replaying(self) -> bool:
        return self._context.is_replaying

    def now(self) -> datetime:
        return self._context.now()

    @overload
    def step(
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
    def step(
        self,
        name: str,
        function: Callable[..., T],
        /,
        *args: Any,
        retry: RetryPolicy = ...,
        timeout_seconds: float | None = ...,
        **kwargs: Any,
    ) -> T: ...

    def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        retry: RetryPolicy = ONCE,
        timeout_seconds: float | None = None,
        **kwargs: Any,
    ) -> Any:
        return self._wait(
            self._context.step(name, function, *args, retry=retry, timeout_seconds=timeout_seconds, **kwargs)
        )

    @overload
    def llm(self, name: str, prompt: str | None = ..., /, **options: Unpack[ModelOptions]) -> str: ...

    @overload
    def llm(self, name: str, prompt: str | None = ..., /, *, output: type[T], **options: Unpack[ModelOptions]) -> T: ...

    def llm(
        self, name: str, prompt: str | None = None, /, *, output: Any = str, **options: Unpack[ModelOptions]
    ) -> Any:
        return self._wait(self._context.llm(name, prompt, output=output, **options))

    def llm_stream(self, name: str, prompt: str | None = None, /, **options: Unpack[ModelOptions]) -> Iterator[str]:
        pieces = self._context.llm_stream(name, prompt, **options)

        async def next_piece() -> str | None:
            return await anext(pieces, None)

        while (piece := self._wait(next_piece())) is not None:
            yield piece

    def tool(self, tool: Callable[..., Any] | Tool | str, /, *, step_name: str | None = None, **arguments: Any) -> Any:
        return self._wait(self._context.tool(tool, step_name=step_name, **arguments))

    def approve(self, name: str, /, **options: Unpack[ApprovalArguments]) -> Approved:
        return self._wait(self._context.approve(name, **options))

    def recall(self, name: str) -> Any:
        return self._wait(self._context.recall(name))

    def remember(self, name: str, value: Any) -> None:
        self._wait(self._context.remember(name, value))

    def sleep(
        self, name: str, *, seconds: float = 0.0, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        self._wait(self._context.sleep(name, seconds=seconds, minutes=minutes, hours=hours, days=days))

    def wait_for(self, name: str, *, timeout_seconds: float | None = None, returns: Any = Any) -> Any:
        return self._wait(self._context.wait_for(name, timeout_seconds=timeout_seconds, returns=returns))

    def start(
        self,
        agent: str,
        input: Any = None,
        *,
        name: str | None = None,
        lane: str | None = None,
        priority: int | None = None,
        delay_seconds: float = 0.0,
    ) -> SyncChild:
        child = self._wait(
            self._context.start(agent, input, name=name, lane=lane, priority=priority, delay_seconds=delay_seconds)
        )
        return SyncChild(child, self)

    def start_many(
        self,
        name: str,
        agent: str,
        inputs: Sequence[Any],
        *,
        lane: str | None = None,
        priority: int | None = None,
        delay_seconds: float = 0.0,
    ) -> list[SyncChild]:
        children = self._wait(
            self._context.start_many(name, agent, inputs, lane=lane, priority=priority, delay_seconds=delay_seconds)
        )
        return [SyncChild(child, self) for child in children]

    def results(self, name: str, children: Sequence[SyncChild]) -> list[Any]:
        return self._wait(self._context.results(name, [child.child for child in children]))

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        self._attempt.loop.call_soon_threadsafe(lambda: self._context.log(message, level=level, **fields))

    def progress(self, done: int, total: int | None = None) -> None:
        self._attempt.loop.call_soon_threadsafe(self._context.progress, done, total)

    def _wait(self, operation: Coroutine[Any, Any, T]) -> T:
        """Runs an operation on the worker's loop, in the context variables of this thread."""
        outcome: Future[T] = Future()
        context = contextvars.copy_context()
        self._attempt.loop.call_soon_threadsafe(self._start, operation, outcome, context)
        try:
            return outcome.result()
        except CancelledError:
            reason = self._attempt.stop_reason
            raise (Suspend() if reason == "suspended" else Stopped(reason)) from None

    def _start(self, operation: Coroutine[Any, Any, T], outcome: Future[T], context: contextvars.Context) -> None:
        task = self._attempt.loop.create_task(operation, context=context)
        self._attempt.own(task)
        task.add_done_callback(lambda done: _copy_outcome(done, outcome))


class SyncChild:
    """A child run that a plain handler has started."""

    def __init__(self, child: Child, context: SyncContext) -> None:
        self.child = child
        self._context = context

    @property
    def run_id(self) -> str:
        return self.child.run_id

    def result(self) -> Any:
        """Suspends the run until the child has ended; its output. Raises ChildError where it did not succeed."""
        return self._context._wait(self.child.result())


def _copy_outcome(task: asyncio.Task[T], outcome: Future[T]) -> None:
    if task.cancelled():
        outcome.cancel()
        return
    error = task.exception()
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
