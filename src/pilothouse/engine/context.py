"""The context: what agent code sees of its run. A durable operation that finished answers from the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, Unpack, overload

from pydantic import TypeAdapter

from pilothouse import payloads
from pilothouse.clock import to_datetime
from pilothouse.control.attempts import LogLine
from pilothouse.control.runs import Request
from pilothouse.control.waits import Wait
from pilothouse.domain.retries import RetryPolicy
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.engine.approvals import ApprovalArguments, Approved, approve
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.models import ModelOptions, ModelStep
from pilothouse.engine.runaways import note_error, note_stored
from pilothouse.engine.signals import receive_signal, start_timer
from pilothouse.engine.signature import decode_result, encode_result, step_traits
from pilothouse.engine.steps import StepCall, answer_of, store, store_error
from pilothouse.engine.tool_calls import ToolStep
from pilothouse.engine.tools import Tool
from pilothouse.errors import ChildError, StepError
from pilothouse.store.database import Row

T = TypeVar("T")

ONCE = RetryPolicy()
CHILD_KIND, MEMORY_KIND, RESULT_KIND, STEP_KIND = "child", "memory", "result", "step"


class Context:
    """What an agent's handler gets as its first argument.

    Every operation takes a name, unique within the run: it is the key under which the result is kept. Code between
    operations runs again after a crash or a wait, so it must not touch the outside world; a step does that.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @property
    def attempt_state(self) -> Attempt:
        """The attempt as the engine sees it, for adapters of other frameworks."""
        return self._attempt

    @property
    def run_id(self) -> str:
        return self._attempt.claim.run_id

    @property
    def input(self) -> Any:
        """The run's input, as JSON data."""
        return payloads.decode(self._attempt.claim.input)

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
            await note_stored(attempt, asked, stored)
            return answer_of(stored, traits.output)
        try:
            with attempt.busy():
                call = StepCall(attempt, asked, function, traits, args, kwargs, retry, timeout_seconds)
                return decode_result(await call.run(), traits.output)
        except StepError as error:
            if error.step == asked.key:
                await note_error(attempt, asked, error)
            raise

    @overload
    async def llm(self, name: str, prompt: str | None = ..., /, **options: Unpack[ModelOptions]) -> str: ...

    @overload
    async def llm(
        self, name: str, prompt: str | None = ..., /, *, output: type[T], **options: Unpack[ModelOptions]
    ) -> T: ...

    async def llm(
        self, name: str, prompt: str | None = None, /, *, output: Any = str, **options: Unpack[ModelOptions]
    ) -> Any:
        """Asks a model; once it has answered, the stored answer stands, and no attempt pays for it again.

        `output` is the type of the answer: text, or anything that Pydantic can validate; an answer that does not fit is
        sent back for repair, at most `repairs` (2) times. `messages` come before the prompt, `system` before them all.
        `model` is a route of pilothouse.toml or a model as `provider:name` (the agent's `model`, else the default
        route). `max_tokens` and `temperature` stay under the route's caps. Of `tools` the model may call any, in at
        most `max_rounds` (10) rounds and `max_tool_calls` (25) calls; beyond them, or when it goes round in circles,
        the run waits for the signal `NAME.continue`. An equal question is answered from the kept answers for
        `cache_seconds`. Where no model can answer now, the run waits until one may.
        Raises StepError where no model takes the question, OutputInvalid where no answer fits `output`.
        """
        return await ModelStep(self._attempt, name, prompt, output, options).run()

    async def llm_stream(
        self, name: str, prompt: str | None = None, /, **options: Unpack[ModelOptions]
    ) -> AsyncIterator[str]:
        """Asks a model for text and yields it in pieces as it comes; a stored answer comes in one piece.

        Takes what `llm` takes, without `tools`. An answer that breaks off after its first piece raises StepError.
        """
        async for piece in ModelStep(self._attempt, name, prompt, str, options).stream():
            yield piece

    async def tool(
        self, tool: Callable[..., Any] | Tool | str, /, *, step_name: str | None = None, **arguments: Any
    ) -> Any:
        """Calls a tool, once: its result is kept, and every call is recorded with its arguments.

        `tool` is a function, registered by `App.tool` or not, or a registered name. The step is named after it, with a
        number from the second call on, unless `step_name` says otherwise.
        Where a policy asks, the run waits for people first, who may edit the arguments.
        Raises ToolError for an unknown name or arguments that do not fit, StepError once the call has failed for good,
        PolicyDenied, ApprovalRejected, ApprovalExpired or RevisionRequested where it may not be called.
        """
        found = await self._attempt.agent.toolbox.find(tool)
        name = step_name or self._attempt.unique(found.name)
        return await ToolStep(self._attempt, name, found, "code").run(arguments)

    async def approve(self, name: str, /, **options: Unpack[ApprovalArguments]) -> Approved:
        """Asks people, and suspends the run until they have decided; returns the yes, with the arguments to go on with.

        `arguments` are exactly what will be done, as JSON data; the reviewer may edit them (by default the amount).
        `risk` is a tier: for 0 and 1 nobody is asked unless a policy says so, 2 needs a reviewer, 3 a senior one, 4 two
        different people. `amount_usd`, `billing` ("none", "one_time", "recurring"), `people_affected`, `confidence` (0
        to 1) and `data_class` are what policies look at. `recommendation`, `reasoning`, `risk_assessment`,
        `alternatives` and `reversible` tell the reviewer what it is about; `title` stands in lists. After
        `deadline_hours` it does what `on_deadline` says: "wait" on, "escalate" to senior reviewers, or "expire".
        Raises ApprovalRejected with the reason, RevisionRequested with what to change (then ask again, by the same
        name), ApprovalExpired, PolicyDenied, and ApprovalIncomplete that names what is missing, before anyone is asked.
        """
        return await approve(self._attempt, name, options)

    async def sleep(
        self, name: str, *, seconds: float = 0.0, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Suspends the run for that long, without holding a slot. The instant is fixed when it is first reached."""
        duration = seconds + 60 * (minutes + 60 * (hours + 24 * days))
        wake_at = await start_timer(self._attempt, name, duration)
        if wake_at > self._attempt.now_us():
            await self._attempt.park((), wake_at)

    async def wait_for(self, name: str, *, timeout_seconds: float | None = None, returns: Any = Any) -> Any:
        """Suspends the run until the signal `name` is sent to it; its payload, in the type `returns`.

        A signal that was sent before is taken at once. Raises WaitTimeout after `timeout_seconds`.
        """
        adapter = None if returns is Any else TypeAdapter(returns)
        return await receive_signal(self._attempt, name, adapter, timeout_seconds=timeout_seconds)

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
            return self._children(name, answer_of(stored, None))
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
                user_id=self._attempt.claim.user_id,
                parent_id=self.run_id,
                root_id=self._attempt.claim.root_id,
                traceparent=self._attempt.claim.traceparent,
            )
            for value in plain
        )
        ids = [request.id for request in wanted]
        await store(self._attempt, asked, payloads.encode(ids), children=wanted)
        return self._children(name, ids)

    async def results(self, name: str, children: Sequence[Child]) -> list[Any]:
        """Suspends the run until all `children` have ended; their outputs, in order.

        Wakes once, however many there are. Raises ChildError for the first one that failed or was cancelled.
        """
        ids = [child.run_id for child in children]
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(name, RESULT_KIND, ids)
        if stored is not None:
            return list(answer_of(stored, None))
        states = await self._attempt.services.reader.children(ids)
        ended = {row["id"]: row for row in states if row["state"] in TERMINAL}
        waits = tuple(Wait("child", id, asked.key) for id in dict.fromkeys(ids) if id not in ended)
        if waits:
            await self._attempt.park(waits, None)
        return await self._collect(asked, [ended[id] for id in ids])

    async def recall(self, name: str) -> Any:
        """What an earlier run of this agent for this tenant remembered under `name`; None where none did."""
        await self._attempt.refuse_if_stopped()
        asked, stored = self._attempt.journal.open(f"recall.{name}", MEMORY_KIND, {"recall": name})
        if stored is not None:
            return answer_of(stored, None)
        found = await self._attempt.services.reader.memory(self.run_id, name)
        text = "null" if found is None else str(found["value"])
        await store(self._attempt, asked, text)
        return payloads.decode(text)

    async def remember(self, name: str, value: Any) -> None:
        """Keeps JSON data for later runs of this agent for this tenant; the latest value of a name stands.

        It is written in one transaction with its step, so once, whatever crashes.
        """
        await self._attempt.refuse_if_stopped()
        text = encode_result(value, None, f"remember {name!r}")
        key = self._attempt.unique(f"remember.{name}")
        asked, stored = self._attempt.journal.open(key, MEMORY_KIND, {"remember": name, "value": text})
        if stored is None:
            await store(self._attempt, asked, text, memories=((name, text),))

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Writes a line to the run's own log. Not written again while earlier attempts are replayed."""
        if self._attempt.stop_reason is not None or not self._attempt.journal.should_log():
            return
        claim = self._attempt.claim
        text = self._attempt.redact(encode_result(fields, None, "log"))
        told = self._attempt.redact(message.replace("\x00", ""))
        line = LogLine(claim.run_id, claim.attempt, self._attempt.now_us(), level, told, text)
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
                await store_error(self._attempt, asked, error)
                raise error
        outputs = [payloads.decode(row["output"]) for row in ended]
        await store(self._attempt, asked, payloads.encode(outputs))
        return outputs


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


def _message(error: str | None) -> str:
    return str(payloads.decode(error)["message"]) if error else "no reason was recorded"
