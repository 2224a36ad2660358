"""Asking models, as steps of a run: every answer is a checkpoint, so that no attempt pays for one that it has.

A question goes in rounds: the model answers or wants tools called, and their results go into the next round. All that
happens between two answers follows from the answers before, so replaying them leads to the same place.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict

from pilothouse import payloads
from pilothouse.control.bookings import Booking, model_charges
from pilothouse.control.calls import ModelCall, StepCalls
from pilothouse.domain.retries import Backoff
from pilothouse.engine.attempt import Attempt, Models
from pilothouse.engine.failures import describe_error
from pilothouse.engine.guard import LoopGuard
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.limits import wait_for_room
from pilothouse.engine.patience import patiently
from pilothouse.engine.runaways import check_velocity, note_tokens
from pilothouse.engine.signals import halt
from pilothouse.engine.steps import answer_of, make_checkpoint, store_error
from pilothouse.engine.switches import EffectGate, pass_switches
from pilothouse.engine.tool_calls import ToolStep
from pilothouse.engine.tools import Function, Tool, name_of
from pilothouse.engine.window import fit
from pilothouse.errors import (
    ConfigError,
    FatalError,
    LimitReached,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    OutputInvalid,
    StepError,
    ToolError,
    Withheld,
)
from pilothouse.llm import extra
from pilothouse.llm import messages as conversation
from pilothouse.llm.messages import Message, ToolRequest, ToolReturn, ToolSpec
from pilothouse.llm.outputs import FINAL, Output, Problem
from pilothouse.llm.prompts import Answer, Asker, Prompt

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.settings import ModelSettings

MODEL_KIND = "model"

PATIENCE_SECONDS = 2.0
PATIENT_TRIES = 3
"""A wait of up to so many seconds is sat out, so many times; for a longer one the run is suspended."""

PUT_OFF = Backoff()
"""For how long at least, where a question went out in vain that often."""


class ModelOptions(TypedDict, total=False):
    """What `Context.llm` takes beside a name, a prompt and a type; see there."""

    messages: Sequence[Message]
    system: str
    model: str
    tools: Sequence[Function | Tool | str]
    max_tokens: int
    temperature: float
    max_rounds: int
    max_tool_calls: int
    repairs: int
    cache_seconds: float


MAX_ROUNDS, MAX_TOOL_CALLS, REPAIRS = 10, 25, 2


class ModelStep:
    """One question to a model, under the step name `name`."""

    def __init__(self, attempt: Attempt, name: str, prompt: str | None, type: Any, options: ModelOptions) -> None:
        extra.require()
        self._attempt = attempt
        self._name = name
        self._options = options
        self._output = Output(type)
        said = [*options.get("messages", ())]
        if prompt is not None:
            said.append({"role": "user", "content": prompt})
        if not said:
            raise FatalError(f"step {name!r} asks a model nothing; give it a prompt or messages")
        self._said = said
        self._wanted_tools = tuple(options.get("tools", ()))
        self._tools: dict[str, Tool] = {}
        self._route = options.get("model", attempt.agent.options.model)
        self._guard = LoopGuard(options.get("max_rounds", MAX_ROUNDS), options.get("max_tool_calls", MAX_TOOL_CALLS))
        self._messages: list[ModelMessage] = []

    async def run(self) -> Any:
        """The answer in the wanted type. See `Context.llm` for what it raises."""
        self._messages = conversation.first_messages(self._options.get("system"), self._said)
        if self._wanted_tools:
            self._tools = await self._attempt.agent.toolbox.find_all(self._wanted_tools)
        repairs, number = self._options.get("repairs", REPAIRS), 0
        while True:
            number += 1
            response = await self._answer(number)
            self._messages.append(response)
            wanted = conversation.tool_requests(response, but=FINAL)
            if wanted:
                await self._call_tools(number, wanted)
                continue
            value = self._output.read(response)
            if not isinstance(value, Problem):
                return value
            if repairs == 0 or response.finish_reason == "length":
                await self._give_up(number, value, response)
                repairs = self._options.get("repairs", REPAIRS)  # an earlier attempt gave up here; this one asks on
            repairs = max(0, repairs - 1)
            self._messages.append(conversation.repair_message(response, value.message))

    async def _give_up(self, number: int, problem: Problem, response: ModelResponse) -> None:
        """Fails with OutputInvalid, and keeps that; returns where an earlier attempt ended with that failure."""
        name = f"{self._key(number)}.invalid"
        asked, stored = self._attempt.journal.open(name, MODEL_KIND, {"invalid": number})
        cut = "; it was cut off at max_tokens" if response.finish_reason == "length" else ""
        error = OutputInvalid(f"step {self._name!r}: {problem.message}{cut}")
        error.step = asked.key
        if stored is not None:
            raise error
        if not self._attempt.journal.knows(name):
            await store_error(self._attempt, asked, error)
            raise error

    # --- one answer ------------------------------------------------------------------------

    def _key(self, number: int) -> str:
        return self._name if number == 1 else f"{self._name}.{number}"

    def _request(self, number: int) -> Any:
        """What must be the same on replay. Later rounds follow from the first."""
        if number > 1:
            return {"round": number}
        return {
            "model": self._route,
            "system": self._options.get("system"),
            "messages": self._said,
            "output": self._output.schema,
            "tools": sorted(map(name_of, self._wanted_tools)),
        }

    async def _answer(self, number: int) -> ModelResponse:
        attempt = self._attempt
        if attempt.stop_reason is not None:
            await attempt.refuse_if_stopped()
        asked, stored = attempt.journal.open(self._key(number), MODEL_KIND, self._request(number))
        if stored is not None:
            return conversation.load_response(payloads.encode(answer_of(stored, None)))
        prompt = await fitted(attempt, asked, self._prompt(asked))
        return (await ask(attempt, asked, prompt)).response

    def _prompt(self, asked: StepRequest) -> Prompt:
        options = self._options
        settings: ModelSettings = {}
        if "max_tokens" in options:
            settings["max_tokens"] = options["max_tokens"]
        if "temperature" in options:
            settings["temperature"] = options["temperature"]
        specs = [ToolSpec(tool.name, tool.description, tool.schema) for tool in self._tools.values()]
        return Prompt(
            route=self._route,
            messages=tuple(self._messages),
            parameters=self._output.parameters(conversation.tool_definitions(specs)),
            asker=asker_of(self._attempt, asked),
            settings=settings,
            cache_seconds=options.get("cache_seconds"),
        )

    # --- a stream --------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[str]:
        """The text of one answer in pieces, and the checkpoint at its end."""
        if self._wanted_tools:
            raise FatalError(f"step {self._name!r} streams, so its model can call no tools; use ctx.llm")
        attempt = self._attempt
        await attempt.refuse_if_stopped()
        self._messages = conversation.first_messages(self._options.get("system"), self._said)
        asked, stored = attempt.journal.open(self._name, MODEL_KIND, self._request(1))
        if stored is not None:
            yield conversation.load_response(payloads.encode(answer_of(stored, None))).text or ""
            return
        pieces = Pieces()
        prompt = await fitted(attempt, asked, self._prompt(asked))
        asking = asyncio.ensure_future(ask(attempt, asked, replace(prompt, on_piece=pieces)))
        asking.add_done_callback(lambda _: pieces.end())
        attempt.own(asking)
        try:
            async for piece in pieces:
                yield piece
            await asking
        finally:
            asking.cancel()

    # --- tools -----------------------------------------------------------------------------

    async def _call_tools(self, number: int, wanted: Sequence[ToolRequest]) -> None:
        """Calls what the model wants called; those that change nothing side by side, the others one by one."""
        steps = [(f"{self._key(number)}/{place}.{each.tool}", each) for place, each in enumerate(wanted, start=1)]
        if all(not self._changes_the_world(each) for each in wanted):
            returns = list(await asyncio.gather(*(self._call_tool(name, each) for name, each in steps)))
        else:
            returns = [await self._call_tool(name, each) for name, each in steps]
        self._messages.append(conversation.returns_message(returns))
        self._guard.note(returns)
        halt = self._guard.verdict()
        if halt is not None:
            await self._wait_for_permission(number, halt.reason, halt.evidence)

    def _changes_the_world(self, wanted: ToolRequest) -> bool:
        tool = self._tools.get(wanted.tool)
        return tool is not None and tool.effect.changes_the_world

    async def _call_tool(self, name: str, wanted: ToolRequest) -> ToolReturn:
        """What a call came to. A tool that fails, or does not exist, is the model's to deal with."""
        tool = self._tools.get(wanted.tool)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return ToolReturn(wanted, f"There is no tool {wanted.tool!r}; the tools are {known}.", has_failed=True)
        step = ToolStep(self._attempt, name, tool, "model")
        try:
            if wanted.arguments is None:
                await step.refuse(wanted.text, ToolError(f"the arguments are no JSON object: {wanted.text[:200]}"))
            result = await step.run(wanted.arguments)
        except ToolError as error:
            return ToolReturn(wanted, str(error), has_failed=True)
        except StepError as error:
            if isinstance(error.__cause__, FatalError):
                raise
            is_refusal = error.error_type == ToolError.__name__
            told = error.message if is_refusal else f"{error.error_type}: {error.message}"
            return ToolReturn(wanted, self._attempt.redact(told), has_failed=True)
        return ToolReturn(wanted, tool.plain(result))

    async def _wait_for_permission(self, number: int, reason: str, evidence: Any) -> None:
        """Suspends the run until a person lets the model go on: `runs signal RUN NAME.continue`."""
        told = f"step {self._name!r} was halted: {reason}"
        key = self._attempt.journal.key_of(self._key(number))
        said = await halt(self._attempt, key, "continue", told, evidence)
        if isinstance(said, dict) and said.get("stop"):
            raise FatalError(f"step {self._name!r} was halted ({reason}) and stopped: {said['stop']}")
        self._guard.forgive()


def asker_of(attempt: Attempt, asked: StepRequest) -> Asker:
    claim, count = attempt.claim, attempt.journal.count(MODEL_KIND)
    return Asker(
        claim.run_id, claim.agent, claim.tenant, claim.lane, count - 1, asked.key, claim.attempt, claim.user_id
    )


class Pieces:
    """The pieces of a stream on their way from the one who asks to the one who listens."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[str | None]()
        self.has_heard = False

    def __call__(self, text: str) -> None:
        self.has_heard = True
        self._queue.put_nowait(text)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self._queue.get()) is not None:
            yield piece


async def fitted(attempt: Attempt, asked: StepRequest, prompt: Prompt) -> Prompt:
    """The prompt within the agent's context window."""
    if attempt.agent.options.window is None:
        return prompt

    async def summarise(name: str, route: str, text: str) -> str:
        summary: str = await ModelStep(attempt, name, text, str, {"model": route}).run()
        return summary

    return replace(prompt, messages=await fit(attempt, asked, prompt.messages, summarise))


async def ask(attempt: Attempt, asked: StepRequest, prompt: Prompt) -> Answer:
    """Asks, and keeps the answer as the checkpoint of `asked`.

    Waits where no model answers now, none is affordable, or a kill switch stops the question.

    Raises StepError once the question has failed for good.
    """
    models = attempt.services.around.models
    if models is None:
        raise FatalError(extra.MISSING)
    await check_velocity(attempt, asked)
    gated, tries = replace(prompt, may_go_out=EffectGate(attempt).open), 0
    while True:
        await pass_switches(attempt)
        try:
            return await _ask(attempt, asked, gated, models)
        except Withheld:
            continue
        except LimitReached as error:
            tries += 1
            await wait_for_room(attempt, asked.key, error, tries)


@dataclass(slots=True)
class _Tries:
    """What an attempt has asked for one step, and got no answer to yet."""

    started_at: int
    times: int = 0
    calls: list[ModelCall] = field(default_factory=list)
    was_asked: bool = False

    def note(self, error: ModelUnavailable) -> None:
        self.calls += calls_in(error)
        self.was_asked = self.was_asked or error.was_asked

    def may_sit_out(self, error: ModelUnavailable) -> bool:
        return error.retry_after_seconds <= PATIENCE_SECONDS and self.times <= PATIENT_TRIES


async def _ask(attempt: Attempt, asked: StepRequest, prompt: Prompt, models: Models) -> Answer:
    tries = _Tries(attempt.now_us())
    with attempt.busy():
        while True:
            tries.times += 1
            try:
                answer = await patiently(lambda: models.answer(prompt))
            except ModelUnavailable as error:
                tries.note(error)
                if prompt.has_pieces:
                    await _give_up(attempt, asked, error, tries)
                if not tries.may_sit_out(error):
                    seconds, reason = await _put_off(attempt, asked, error, tries), str(error)
                    break
                await asyncio.sleep(error.retry_after_seconds * (1 + random.random() / 4))
                continue
            except ConfigError as error:
                await _give_up(attempt, asked, ModelRefused(str(error)), tries)
            except (FatalError, ModelError) as error:
                tries.calls += calls_in(error)
                await _give_up(attempt, asked, error, tries)
            await _keep(attempt, asked, answer, tries)
            return answer
    return await attempt.park((), attempt.now_us() + int(seconds * 1_000_000), reason)


async def _keep(attempt: Attempt, asked: StepRequest, answer: Answer, tries: _Tries) -> None:
    attempt.journal.executed += 1
    result = conversation.dump_response(answer.response)
    checkpoint = make_checkpoint(attempt, asked, result=result, started_at=tries.started_at, tries=tries.times)
    booking = Booking(charges=model_charges(answer.calls))
    calls = StepCalls(models=(*tries.calls, *answer.calls))
    for call in answer.calls:
        note_tokens(attempt, call)
    await attempt.services.writer.checkpoint(checkpoint._replace(calls=calls, booking=booking))


async def _put_off(attempt: Attempt, asked: StepRequest, error: ModelUnavailable, tries: _Tries) -> float:
    """For how many seconds to suspend the run; it does not count as a failure.

    What was asked in vain is kept with the step, which stays to be done. The oftener that was, the longer the wait.
    """
    if not tries.was_asked:
        return error.retry_after_seconds
    before = attempt.journal.failure(asked.key)
    times = tries.times + (0 if before is None else int(before["tries"]))
    await _store_failure(attempt, asked, error, tries, state="retryable")
    return max(error.retry_after_seconds, PUT_OFF.delay_seconds(times // PATIENT_TRIES, random.random()))


def calls_in(error: Exception) -> list[ModelCall]:
    """The records of what was asked before an error."""
    return [call for call in getattr(error, "calls", ()) if isinstance(call, ModelCall)]


async def _give_up(attempt: Attempt, asked: StepRequest, error: Exception, tries: _Tries) -> NoReturn:
    await _store_failure(attempt, asked, error, tries, state="failed")
    raise StepError(asked.key, type(error).__name__, str(error)) from error


async def _store_failure(
    attempt: Attempt, asked: StepRequest, error: Exception, tries: _Tries, *, state: Literal["failed", "retryable"]
) -> None:
    told = describe_error(error)
    checkpoint = make_checkpoint(attempt, asked, error=told, started_at=tries.started_at, tries=tries.times)
    kept = checkpoint._replace(state=state, calls=StepCalls(models=tuple(tries.calls)))
    await attempt.services.writer.checkpoint(kept)
