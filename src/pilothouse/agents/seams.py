"""What every adapter needs: a model call and a tool call of a framework, each as a step of the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.agents.declared import Declarations, KnownTool
from pilothouse.domain.effects import Effect
from pilothouse.domain.retries import RetryPolicy
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.governed import GovernedCall, kept_answer
from pilothouse.engine.intents import Ready
from pilothouse.engine.journal import current_path
from pilothouse.engine.models import MODEL_KIND, ask, asker_of, fitted
from pilothouse.engine.permission import Call, Declared, permit
from pilothouse.engine.runaways import note_stored
from pilothouse.engine.signature import StepTraits
from pilothouse.engine.steps import StepCall, answer_of
from pilothouse.engine.switches import EffectGate, pass_switches
from pilothouse.engine.tool_calls import TOOL_KIND, declared_by
from pilothouse.engine.tools import ToolOptions
from pilothouse.errors import ConfigError, FatalError
from pilothouse.llm.messages import load_response
from pilothouse.llm.prompts import Prompt

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

ASKS = 2
"""The risk tier of a call that the framework itself wants a person to approve: one reviewer."""

ONCE = RetryPolicy()
UNSAID = frozenset({"timestamp", "run_id", "conversation_id", "metadata"})


@dataclass(frozen=True, slots=True)
class Question:
    """What a framework asks a model. `own_model` is asked itself, in the place of the route's models."""

    route: str | None
    messages: list[ModelMessage]
    parameters: ModelRequestParameters
    settings: ModelSettings
    own_model: Model | None = None


async def ask_model(attempt: Attempt, name: str, question: Question) -> ModelResponse:
    """A model's answer, once: the step is named `name`, with a number from the second on.

    Only the latest message must be the same on replay; what came before it follows from the answers so far, or is an
    instruction that may tell the time.
    """
    latest = _plain(to_jsonable_python(question.messages[-1:], fallback=str, inf_nan_mode="strings"))
    return await ask_question(attempt, name, question, {"latest": latest})


async def ask_question(attempt: Attempt, name: str, question: Question, facts: Any) -> ModelResponse:
    """A model's answer, once; `facts` are what must be the same on replay."""
    if attempt.stop_reason is not None:
        await attempt.refuse_if_stopped()
    asked, stored = attempt.journal.open(_unique(attempt, name), MODEL_KIND, facts)
    if stored is not None:
        return load_response(payloads.encode(answer_of(stored, None)))
    prompt = Prompt(
        question.route,
        question.messages,
        question.parameters,
        asker_of(attempt, asked),
        question.settings,
        own_model=question.own_model,
    )
    return (await ask(attempt, asked, await fitted(attempt, asked, prompt))).response


@dataclass(frozen=True, slots=True)
class ForeignTool:
    """A tool of a framework. `is_asked_for`: the framework itself wants a person to approve the call."""

    name: str
    options: ToolOptions
    is_asked_for: bool = False

    @property
    def effect(self) -> Effect:
        return self.options.effect

    @property
    def platform(self) -> str | None:
        return self.options.platform

    @property
    def cost_microusd(self) -> int:
        return self.options.cost_microusd

    @property
    def is_repeatable(self) -> bool:
        return self.effect is Effect.IDEMPOTENT

    @property
    def declared(self) -> Declared:
        found = declared_by(self.name, self.options)
        return found._replace(risk=max(found.risk, ASKS)) if self.is_asked_for else found


@dataclass(frozen=True, slots=True)
class Calls:
    """What stands behind the tools of an agent: the attempt that they are called in, and what was said of them.

    `to_approve` are the ids of the calls that the framework wants a person to approve.
    """

    attempt: Attempt
    declarations: Declarations
    to_approve: set[str] = field(default_factory=set)

    def tool(self, known: KnownTool, *, is_asked_for: bool = False) -> ForeignTool:
        """Raises FatalError where what is said of it cannot be, which is seen at the start of those known then."""
        try:
            return ForeignTool(known.name, self.declarations.of(known), is_asked_for)
        except ConfigError as error:
            raise FatalError(str(error)) from error


async def call_tool(
    attempt: Attempt,
    name: str,
    tool: ForeignTool,
    arguments: Mapping[str, Any],
    function: Callable[[dict[str, Any]], Awaitable[Any]],
) -> Any:
    """What `function` returns of the arguments, once, as JSON gives it back; a reviewer may have edited them.

    Raises StepError where it failed for good, ToolError with what to tell the model where it may not go out.
    """
    if attempt.stop_reason is not None:
        await attempt.refuse_if_stopped()
    asked, stored = attempt.journal.open(name, TOOL_KIND, {"tool": tool.name, "arguments": arguments})
    if stored is not None:
        await note_stored(attempt, asked, stored, tool.name)
        return kept_answer(stored, None, tool)
    await pass_switches(attempt, tool.name)
    given = await permit(Call(attempt, asked, tool.declared, "model", dict), dict(arguments))
    text = payloads.encode(to_jsonable_python(given, fallback=str, inf_nan_mode="strings"))
    governed = GovernedCall(attempt, asked, tool, "model", text)
    traits = StepTraits(tool.name, None, is_async=True)

    async def call(ready: Ready, gate: EffectGate) -> str:
        recorder, later = governed.recorder(ready), governed.may_put_off(ready)
        step = StepCall(attempt, asked, function, traits, (given,), {}, ONCE, None, recorder, gate, later)
        return await step.run()

    return payloads.decode(await governed.carry_out(call))


def _unique(attempt: Attempt, name: str) -> str:
    """Counted for each step by itself: what is asked inside a tool is not asked when the tool's answer is there."""
    path = current_path.get()
    return attempt.unique(f"{path}/{name}").removeprefix(f"{path}/")


def _plain(value: Any) -> Any:
    """Data without what differs from one attempt to the next."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items() if key not in UNSAID}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value
