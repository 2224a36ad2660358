"""Agents of Pydantic AI, durable as they are: their models go through the gateway, their tools become steps.

The agent is not changed: each run of it gets a model of ours and a capability of ours, which see every model request
and every tool call, whichever toolset it comes from.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.capabilities.abstract import AbstractCapability, WrapToolExecuteHandler
from pydantic_ai.exceptions import AgentRunError, ApprovalRequired, ModelRetry, ToolFailed, ToolRetryError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext, ToolDefinition
from pydantic_ai.toolsets import FunctionToolset

from pilothouse import payloads
from pilothouse.agents.declared import Declarations, KnownTool
from pilothouse.agents.seams import Calls, Question, ask_model, call_tool
from pilothouse.engine.agent import SOURCE
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.context import Context
from pilothouse.errors import FatalError, ToolError

ID_SHOWN = 12


class JournaledModel(Model):
    """Asks the gateway in the place of an agent's own model; each request is a step."""

    def __init__(self, attempt: Attempt, name: str, route: str | None, own_model: Model | None) -> None:
        super().__init__(profile=None if own_model is None else own_model.profile)
        self._attempt = attempt
        self._name = name
        self._route = route
        self._own_model = own_model

    @property
    def model_name(self) -> str:
        return self._route or "default"

    @property
    def system(self) -> str:
        return "pilothouse"

    @property
    def provider(self) -> None:
        return None

    def prepare_request(
        self, model_settings: ModelSettings | None, model_request_parameters: ModelRequestParameters
    ) -> tuple[ModelSettings | None, ModelRequestParameters]:
        return model_settings, model_request_parameters  # the model that is asked in the end prepares its request

    def prepare_messages(
        self, messages: list[ModelMessage], model_request_parameters: ModelRequestParameters | None = None
    ) -> list[ModelMessage]:
        return messages

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        question = Question(self._route, messages, model_request_parameters, model_settings or {}, self._own_model)
        return await ask_model(self._attempt, f"{self._name}.model", question)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)


class JournaledTools(AbstractCapability[Any]):
    """Makes every tool call of an agent's run a step; those that the agent wants approved wait for a person."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        return requests.build_results(approve_all=True) if requests.approvals else None  # people are asked at the call

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        known = KnownTool(call.tool_name, tool_def.metadata, _arguments(tool_def, args))
        tool = self._calls.tool(known, is_asked_for=ctx.tool_call_approved)

        async def execute(given: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"returned": await handler(given)}
            except (ModelRetry, ToolRetryError) as error:
                return {"retry": str(error)}
            except ToolFailed as error:
                return {"failed": error.message}
            except ApprovalRequired:
                return {"asks": True}

        name = f"{call.tool_name}.{call.tool_call_id[-ID_SHOWN:]}" + (".approved" if ctx.tool_call_approved else "")
        try:
            outcome = await call_tool(self._calls.attempt, name, tool, args, execute)
        except ToolError as error:
            raise ToolFailed(str(error)) from error
        if "retry" in outcome:
            raise ModelRetry(outcome["retry"])
        if "failed" in outcome:
            raise ToolFailed(outcome["failed"])
        if "asks" in outcome:
            raise ApprovalRequired
        return outcome["returned"]


Deps = Any | Callable[[Context], Any]


def make_handler(
    name: str, agent: Agent[Any, Any], deps: Deps, declarations: Declarations
) -> Callable[..., Awaitable[Any]]:
    """A handler that takes a prompt, and what `deps` may look at as `context`; it returns what the agent returns.

    Raises ConfigError for what is declared of a tool and cannot be.
    """
    declarations.check(_tools_of(agent), are_all=all(isinstance(each, FunctionToolset) for each in agent.toolsets))
    model = agent.model
    own_model = model if isinstance(model, Model) else None
    named = str(model) if isinstance(model, str) else None

    async def handler(ctx: Context, prompt: str, context: dict[str, Any] | None = None) -> Any:
        attempt = ctx.attempt_state
        route = attempt.agent.options.model or named
        journaled = JournaledModel(attempt, name, route, None if attempt.agent.options.model else own_model)
        given = await _made(deps, ctx)
        tools = JournaledTools(Calls(attempt, declarations))
        try:
            result = await agent.run(prompt, model=journaled, deps=given, capabilities=[tools])
        except AgentRunError as error:
            raise FatalError(f"agent {name!r} gave up: {error}") from error  # with the same answers it would again
        return result.output

    handler.__annotations__["return"] = agent.output_type if isinstance(agent.output_type, type) else Any
    handler.__doc__ = agent.name or name
    setattr(handler, SOURCE, payloads.encode(_facts(agent)))
    return handler


async def _made(deps: Deps, ctx: Context) -> Any:
    if not callable(deps):
        return deps
    made = deps(ctx)
    return await made if inspect.isawaitable(made) else made


def _arguments(tool_def: ToolDefinition, args: Mapping[str, Any]) -> set[str]:
    """Of a tool that may not have been known before the run."""
    return {*tool_def.parameters_json_schema.get("properties", ()), *args}


def _tools_of(agent: Agent[Any, Any]) -> Iterator[KnownTool]:
    """Those that are known before a run; a single argument that is a model stands for its fields."""
    for toolset in agent.toolsets:
        for tool in toolset.tools.values() if isinstance(toolset, FunctionToolset) else ():
            single = tool.function_schema.single_arg_name
            arguments = (single,) if single else tuple(tool.function_schema.json_schema.get("properties", ()))
            yield KnownTool(tool.name, tool.metadata, arguments)


def _facts(agent: Agent[Any, Any]) -> list[str]:
    """What an agent's behaviour comes from, as far as it can be seen."""
    tools = [tool for toolset in agent.toolsets for tool in sorted(getattr(toolset, "tools", {}))]
    model = agent.model if isinstance(agent.model, str) else getattr(agent.model, "model_id", "")
    return [str(agent.name), str(model), repr(agent.output_type), *tools]
