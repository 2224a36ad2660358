"""Conversations as Pydantic AI's messages: what users write, what models answer, what tools return."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from pilothouse.errors import FatalError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.tools import ToolDefinition

ROLES = ("user", "assistant", "system")


class Message(TypedDict):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str


class ToolRequest(NamedTuple):
    """A tool that a model wants called. `arguments` is None where what it wrote is no JSON object."""

    id: str
    tool: str
    arguments: dict[str, Any] | None
    text: str


class ToolSpec(NamedTuple):
    """A tool as a model sees it."""

    name: str
    description: str
    schema: Mapping[str, Any]


class ToolReturn(NamedTuple):
    """What a tool call came to, for the model that asked for it."""

    request: ToolRequest
    content: Any
    has_failed: bool = False


def first_messages(system: str | None, said: Sequence[Message]) -> list[ModelMessage]:
    """The beginning of a conversation. Raises FatalError for a role that does not exist."""
    from pydantic_ai import messages as made

    messages: list[ModelMessage] = []
    for item in said:
        match item["role"]:
            case "assistant":
                messages.append(made.ModelResponse([made.TextPart(item["content"])]))
            case "user":
                messages.append(made.ModelRequest([made.UserPromptPart(item["content"])]))
            case "system":
                messages.append(made.ModelRequest([made.SystemPromptPart(item["content"])]))
            case role:
                raise FatalError(f"a message has the role {role!r}; use {', '.join(ROLES)}")
    if system:
        messages.insert(0, made.ModelRequest([made.SystemPromptPart(system)]))
    return messages


def tool_definitions(tools: Sequence[ToolSpec]) -> list[ToolDefinition]:
    from pydantic_ai.tools import ToolDefinition

    return [
        ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=dict(tool.schema))
        for tool in tools
    ]


def tool_requests(response: ModelResponse, *, but: str) -> list[ToolRequest]:
    """The tools that an answer wants called, without the one of the name `but`."""
    return [
        ToolRequest(call.tool_call_id, call.tool_name, _arguments(call.args), call.args_as_json_str())
        for call in response.tool_calls
        if call.tool_name != but
    ]


def _arguments(args: str | dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        parsed = json.loads(args) if isinstance(args, str) and args else args or {}
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def returns_message(returns: Sequence[ToolReturn]) -> ModelMessage:
    from pydantic_ai.messages import ModelRequest, ToolReturnPart

    return ModelRequest(
        [
            ToolReturnPart(
                each.request.tool, each.content, each.request.id, outcome="failed" if each.has_failed else "success"
            )
            for each in returns
        ]
    )


def repair_message(response: ModelResponse, problem: str) -> ModelMessage:
    """Asks for the answer again, as the return of the call that gave it where there was one."""
    from pydantic_ai.messages import ModelRequest, ToolReturnPart, UserPromptPart

    text = f"{problem} Correct it and answer again."
    calls = response.tool_calls
    if not calls:
        return ModelRequest([UserPromptPart(text)])
    return ModelRequest([ToolReturnPart(call.tool_name, text, call.tool_call_id, outcome="failed") for call in calls])


def dump_response(response: ModelResponse) -> str:
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    return ModelMessagesTypeAdapter.dump_json([response], exclude_none=True)[1:-1].decode()


def dump_messages(messages: Sequence[ModelMessage]) -> str:
    """Messages as JSON, for people to read."""
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    return ModelMessagesTypeAdapter.dump_json(list(messages)).decode()


def load_response(text: str) -> ModelResponse:
    from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse

    (response,) = ModelMessagesTypeAdapter.validate_json(f"[{text}]")
    assert isinstance(response, ModelResponse)
    return response


def split_exchanges(messages: Sequence[ModelMessage]) -> tuple[list[ModelMessage], list[list[ModelMessage]]]:
    """The beginning, and the exchanges after it: each an answer of the model with what followed on it."""
    from pydantic_ai.messages import ModelResponse

    head: list[ModelMessage] = []
    exchanges: list[list[ModelMessage]] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            exchanges.append([message])
        else:
            (exchanges[-1] if exchanges else head).append(message)
    return head, exchanges


def tools_in(messages: Sequence[ModelMessage]) -> frozenset[str]:
    """The tools whose results are in messages."""
    from pydantic_ai.messages import ToolReturnPart

    parts = (part for message in messages for part in message.parts)
    return frozenset(part.tool_name for part in parts if isinstance(part, ToolReturnPart))


def conversation_text(messages: Sequence[ModelMessage]) -> str:
    """Messages as text for a model that sums them up."""
    from pydantic_ai import messages as said

    lines: list[str] = []
    for part in (part for message in messages for part in message.parts):
        match part:
            case said.TextPart():
                lines.append(f"assistant: {part.content}")
            case said.UserPromptPart():
                lines.append(f"user: {part.content}")
            case said.ToolCallPart():
                lines.append(f"assistant calls {part.tool_name}: {part.args_as_json_str()}")
            case said.ToolReturnPart():
                lines.append(f"{part.tool_name} returns: {part.model_response_str()}")
    return "\n".join(lines)


def with_summary(head: Sequence[ModelMessage], summary: str | None, rest: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The beginning, what was summed up, and the rest."""
    from pydantic_ai.messages import ModelRequest, UserPromptPart

    if summary is None:
        return [*head, *rest]
    told = ModelRequest([UserPromptPart(f"Summary of what was said since: {summary}")])
    return [*head, told, *rest]
