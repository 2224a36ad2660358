"""Agents of the OpenAI Agents SDK: their models go through the gateway, their tools become steps.

The SDK asks a `ModelProvider` for every model that is named by text, whichever agent of a hand-off names it, and asks
an agent for its tools before each turn; those two are the seams.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelProvider,
    ModelResponse,
    RunConfig,
    Runner,
    RunResult,
    RunState,
    Tool,
    Usage,
)
from agents.exceptions import AgentsException
from agents.models.chatcmpl_converter import Converter
from agents.run_context import RunContextWrapper
from agents.tool_context import ToolContext
from openai.types.chat import ChatCompletionMessage

from pilothouse import payloads
from pilothouse.agents.declared import Declarations, KnownTool
from pilothouse.agents.seams import Calls, Question, ask_model, call_tool
from pilothouse.engine.agent import SOURCE
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.context import Context
from pilothouse.errors import ConfigError, FatalError, ToolError
from pilothouse.llm.wire import openai as wire
from pilothouse.llm.wire.request import SETTINGS

ID_SHOWN = 12
MAX_TURNS = 50


class JournaledModel(Model):
    """Asks the gateway in the place of a model of the SDK; each request is a step."""

    def __init__(self, attempt: Attempt, name: str, route: str | None) -> None:
        self._attempt = attempt
        self._name = name
        self._route = route

    async def get_response(  # noqa: PLR0913, PLR0917 - the SDK's own signature
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: Any,
        tools: list[Tool],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **_: Any,
    ) -> ModelResponse:
        body: dict[str, Any] = {
            "model": self._route or "default",
            "messages": [
                *([{"role": "system", "content": system_instructions}] if system_instructions else []),
                *Converter.items_to_messages(input),
            ],
            "tools": [
                *(Converter.tool_to_openai(tool) for tool in tools),
                *(Converter.convert_handoff_tool(handoff) for handoff in handoffs),
            ],
            "max_tokens": model_settings.max_tokens,
            "tool_choice": _tool_choice(model_settings.tool_choice),
        }
        body |= {name: getattr(model_settings, name, None) for name in SETTINGS}
        schema = None if output_schema is None or output_schema.is_plain_text() else output_schema.json_schema()
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
        asked = wire.read(json.loads(json.dumps(body, default=_plain)))
        question = Question(self._route, asked.messages, asked.parameters, asked.settings)
        response = await ask_model(self._attempt, f"{self._name}.model", question)
        message = wire.render(response, body["model"])["choices"][0]["message"]
        items = Converter.message_to_output_items(ChatCompletionMessage.model_validate(message))
        usage = Usage(
            requests=1,
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            total_tokens=response.usage.input_tokens + response.usage.output_tokens,
        )
        return ModelResponse(output=items, usage=usage, response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise FatalError("a run of an OpenAI agent is not streamed: its answers are steps")


class JournaledModels(ModelProvider):
    """Gives the gateway for every model that an agent names. `route` beats what the agents name."""

    def __init__(self, attempt: Attempt, name: str, route: str | None) -> None:
        self._attempt = attempt
        self._name = name
        self._route = route

    def get_model(self, model_name: str | None) -> Model:
        named = None if model_name is None else model_name if ":" in model_name else f"openai:{model_name}"
        return JournaledModel(self._attempt, self._name, self._route or named)


class JournaledAgent(Agent[Any]):
    """An agent whose function tools are steps, those of its MCP servers too."""

    async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Tool]:
        tools = await super().get_all_tools(run_context)
        calls: Calls = getattr(self, CALLS)
        return [_journaled_tool(calls, tool) if isinstance(tool, FunctionTool) else tool for tool in tools]


CALLS = "_pilothouse_calls"


def _journaled_agent(calls: Calls, agent: Agent[Any], made: dict[int, Agent[Any]]) -> Agent[Any]:
    """A copy of the agent and of all that it hands off to; agents that hand off to each other are copied once."""
    if id(agent) in made:
        return made[id(agent)]
    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(agent) if field.init}
    named = agent.model if isinstance(agent.model, str) else None  # a model of its own has a route in its place
    copy = JournaledAgent(**{**fields, "handoffs": [], "model": named})
    setattr(copy, CALLS, calls)
    made[id(agent)] = copy
    copy.handoffs = [
        _journaled_agent(calls, each, made) if isinstance(each, Agent) else _journaled_handoff(calls, each, made)
        for each in agent.handoffs
    ]
    return copy


def _journaled_handoff(calls: Calls, handoff: Any, made: dict[int, Agent[Any]]) -> Any:
    inner = handoff.on_invoke_handoff

    async def invoke(context: RunContextWrapper[Any], arguments: str) -> Agent[Any]:
        return _journaled_agent(calls, await inner(context, arguments), made)

    return dataclasses.replace(handoff, on_invoke_handoff=invoke)


def _journaled_tool(calls: Calls, tool: FunctionTool) -> FunctionTool:
    inner = tool.on_invoke_tool

    async def invoke(context: ToolContext[Any], arguments: str) -> Any:
        name = f"{tool.name}.{context.tool_call_id[-ID_SHOWN:]}"
        given = payloads.decode(arguments) if arguments else {}
        foreign = calls.tool(_known(tool), is_asked_for=context.tool_call_id in calls.to_approve)

        async def call(edited: dict[str, Any]) -> Any:
            return await inner(context, arguments if edited == given else payloads.encode(edited))

        try:
            return await call_tool(calls.attempt, name, foreign, given, call)
        except ToolError as error:
            return str(error)

    return dataclasses.replace(tool, on_invoke_tool=invoke)


def _with_all_allowed(calls: Calls, result: RunResult) -> RunState[Any]:
    """The run with every call allowed that wants an approval: people are asked at the call, and may edit it there."""
    state = result.to_state()
    for each in result.interruptions:
        if not isinstance(each.agent, JournaledAgent):
            raise FatalError(
                f"tool {each.name!r} of agent {each.agent.name!r}, which is itself a tool, wants an approval; "
                "hand off to the agent, or let it be asked for the tool that the agent is"
            )
        calls.to_approve.add(str(each.call_id))
        state.approve(each)
    return state


def refuse_own_models(agent: Agent[Any]) -> None:
    """Raises ConfigError where an agent, or one that it hands off to, brings a model that would pass by the gateway."""
    for each in _agents_from(agent):
        if each.model is not None and not isinstance(each.model, str):
            raise ConfigError(
                f"agent {each.name!r} brings a {type(each.model).__name__}, asked past limits and journal; "
                "name its model by text, or put a route in its place: app.add_agent(agent, model='default')"
            )


def _agents_from(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    """The agent and those that it hands off to, each once."""
    seen, waiting = set[int](), [agent]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            waiting.extend(other for other in each.handoffs if isinstance(other, Agent))
            yield each


def _has_other_tools(agent: Agent[Any]) -> bool:
    """Whether it may come to tools that are seen in a run only."""
    return bool(agent.mcp_servers) or not all(isinstance(each, Agent) for each in agent.handoffs)


def _known(tool: FunctionTool) -> KnownTool:
    return KnownTool(tool.name, None, tool.params_json_schema.get("properties", ()))


def make_handler(name: str, agent: Agent[Any], deps: Any, declarations: Declarations) -> Callable[..., Awaitable[Any]]:
    """A handler that takes a prompt and returns the agent's final output. `deps` is the SDK's context.

    Raises ConfigError for what is declared of a tool and cannot be.
    """
    known = list(_agents_from(agent))
    tools_known = [_known(tool) for each in known for tool in each.tools if isinstance(tool, FunctionTool)]
    declarations.check(tools_known, are_all=not any(map(_has_other_tools, known)))

    async def handler(ctx: Context, prompt: str, context: dict[str, Any] | None = None) -> Any:
        attempt = ctx.attempt_state
        calls = Calls(attempt, declarations)
        journaled = _journaled_agent(calls, agent, {})
        models = JournaledModels(attempt, name, attempt.agent.options.model)
        config = RunConfig(model_provider=models, tracing_disabled=True)
        given = deps(ctx) if callable(deps) else deps
        try:
            result = await Runner.run(journaled, prompt, context=given, run_config=config, max_turns=MAX_TURNS)
            while result.interruptions:
                state = _with_all_allowed(calls, result)
                result = await Runner.run(journaled, state, run_config=config, max_turns=MAX_TURNS)
        except AgentsException as error:
            raise FatalError(f"agent {name!r} gave up: {error}") from error  # with the same answers it would again
        return result.final_output

    output = getattr(agent, "output_type", None)
    handler.__annotations__["return"] = output if isinstance(output, type) else Any
    handler.__doc__ = agent.handoff_description or agent.name
    tools = [str(getattr(tool, "name", tool)) for tool in agent.tools]
    setattr(handler, SOURCE, payloads.encode([agent.name, str(agent.instructions), str(agent.model), *tools]))
    return handler


def _tool_choice(said: Any) -> Any:
    """A word, or the one tool that must be called."""
    is_word = said is None or said in ("none", "required", "auto") or not isinstance(said, str)
    return said if is_word else {"type": "function", "function": {"name": said}}


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(exclude_none=True) if dump is not None else None  # the SDK's own marks for what was not given
