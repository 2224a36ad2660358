"""Models without a network: `offline:echo`, `offline:scripted:FILE`, `offline:rules:MODULE:FUNCTION`."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pilothouse.errors import ConfigError
from pilothouse.llm.script import Question, Reply, Responder, ToolUse, echo, load_script

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.models.function import AgentInfo, DeltaToolCalls

PIECE = 12
"""Characters of one piece of a streamed text."""


def find_responder(name: str) -> Responder:
    """What answers for the model `offline:NAME`. Raises ConfigError that says what does not fit."""
    kind, _, rest = name.partition(":")
    if kind == "echo" and not rest:
        return echo
    if kind == "scripted" and rest:
        return load_script(rest)
    if kind == "rules" and rest:
        return _load_rules(rest)
    raise ConfigError(
        f"there is no model offline:{name}; use offline:echo, offline:scripted:FILE or offline:rules:MODULE:FUNCTION"
    )


def _load_rules(reference: str) -> Responder:
    module_name, _, attribute = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute or "rules")
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model offline:rules:{reference} cannot be loaded: {error}") from error

    def answer(question: Question) -> Reply:
        return as_reply(function(question), reference)

    return answer


def as_reply(said: object, where: str) -> Reply:
    """A user's answer: text, JSON data, a `ToolUse` or several, or a whole `Reply`."""
    match said:
        case Reply():
            return said
        case str():
            return Reply(text=said)
        case ToolUse():
            return Reply(calls=(said,))
        case list() if said and all(isinstance(item, ToolUse) for item in said):
            return Reply(calls=tuple(said))
        case dict() | list() | int() | float() | bool():
            return Reply(json=said)
    raise ConfigError(f"{where} answered with a {type(said).__name__}; return text, JSON data, ToolUse or Reply")


def make_offline_model(name: str, responder: Responder) -> Model:
    """A model that answers with what `responder` says, streamed in pieces where a stream is wanted."""
    from pydantic_ai.models.function import FunctionModel

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        reply = responder(read_question(name, messages, info))
        await asyncio.sleep(reply.delay_seconds)
        _raise_fault(name, reply)
        return make_response(reply, info)

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        reply = responder(read_question(name, messages, info))
        if reply.fault != "cut_off":
            _raise_fault(name, reply)
        async for piece in _pieces(reply, info):
            yield piece
        if reply.fault == "cut_off":
            raise _connection_error(name)

    return FunctionModel(answer, stream_function=stream, model_name=name)


async def _pieces(reply: Reply, info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    from pydantic_ai.messages import TextPart, ToolCallPart
    from pydantic_ai.models.function import DeltaToolCall

    for place, part in enumerate(make_response(reply, info).parts):
        if isinstance(part, TextPart):
            for start in range(0, max(1, len(part.content)), PIECE):
                await asyncio.sleep(reply.delay_seconds)
                yield part.content[start : start + PIECE]
        elif isinstance(part, ToolCallPart):
            yield {place: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}


def read_question(name: str, messages: Sequence[ModelMessage], info: AgentInfo) -> Question:
    """What a script looks at, of Pydantic AI's messages."""
    from pydantic_ai import messages as said

    texts = [
        part
        for message in messages
        if isinstance(message, said.ModelRequest)
        for part in message.parts
        if isinstance(part, said.UserPromptPart | said.ToolReturnPart | said.RetryFeedbackPart)
    ]
    prompts = [part for part in texts if isinstance(part, said.UserPromptPart)]
    last = texts[-1] if texts else None
    result = last if isinstance(last, said.ToolReturnPart) and not _is_output(last, info) else None
    form = _wanted_form(info)
    return Question(
        model=name,
        text=_text(prompts[-1].content) if prompts else "",
        system=info.instructions or _system(messages),
        after=result.tool_name if result else None,
        result=result.model_response_str() if result else "",
        asks_for=None if form is None else str(form.get("title", "answer")),
        schema=form,
        tools=tuple(tool.name for tool in info.function_tools),
        round=1 + sum(isinstance(message, said.ModelResponse) for message in messages),
    )


def _wanted_form(info: AgentInfo) -> Mapping[str, Any] | None:
    """The JSON Schema of the wanted answer, whichever way it is asked for."""
    if info.output_tools:
        return info.output_tools[0].parameters_json_schema
    wanted = info.model_request_parameters.output_object
    return None if wanted is None else wanted.json_schema


def _is_output(part: Any, info: AgentInfo) -> bool:
    return any(part.tool_name == tool.name for tool in info.output_tools)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(item if isinstance(item, str) else str(getattr(item, "content", "")) for item in content)


def _system(messages: Sequence[ModelMessage]) -> str:
    from pydantic_ai.messages import SystemPromptPart

    return "\n".join(
        part.content for message in messages for part in message.parts if isinstance(part, SystemPromptPart)
    )


def make_response(reply: Reply, info: AgentInfo) -> ModelResponse:
    """What a reply looks like as a model's answer; JSON goes into the form that the prompt asks for."""
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

    if reply.fault == "broken_json":
        broken = '{"text": "cut in the mid'
        name = info.output_tools[0].name if info.output_tools else None
        return ModelResponse([ToolCallPart(name, broken)] if name else [TextPart(broken)])
    if reply.calls:
        return ModelResponse([ToolCallPart(call.tool, call.arguments) for call in reply.calls])
    if reply.text is None and info.output_tools:
        return ModelResponse([ToolCallPart(info.output_tools[0].name, reply.json)])
    text = reply.text if reply.text is not None else json.dumps(reply.json, ensure_ascii=False)
    return ModelResponse([TextPart(text)])


def _raise_fault(name: str, reply: Reply) -> None:
    from pydantic_ai import exceptions as raised

    match reply.fault:
        case "rate_limited":
            raise raised.ModelRateLimitError(name, "429, as scripted", retry_after=reply.retry_after_seconds)
        case "server_error":
            raise raised.ModelServerError(name, "500, as scripted")
        case "timeout":
            raise TimeoutError
        case "unauthorized":
            raise raised.ModelAuthenticationError(name, "401, as scripted")
        case "not_found":
            raise raised.ModelNotFoundError(name, "404, as scripted")
        case "rejected":
            raise raised.ModelRequestRejectedError(name, "400, as scripted")
        case "empty":
            raise raised.UnexpectedModelBehavior("an empty answer, as scripted")
        case "cut_off":
            raise _connection_error(name)
        case _:
            return


def _connection_error(name: str) -> Exception:
    from pydantic_ai.exceptions import ModelConnectionError

    return ModelConnectionError(name, "the answer was cut off, as scripted")
