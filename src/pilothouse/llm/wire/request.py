"""A request in one of the protocols, as the gateway's own messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pilothouse.llm.outputs import FINAL

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import ToolDefinition

PIECE = 16
"""Characters of one piece of a streamed text."""


SETTINGS: tuple[
    Literal["temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls"], ...
] = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls")
"""What requests and our settings call by the same name."""


class BadRequest(Exception):
    """The body is no request of the protocol; the message says where."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """What a client asks. `is_stream`: it wants the answer in events."""

    model: str
    messages: list[ModelMessage]
    parameters: ModelRequestParameters
    settings: ModelSettings
    is_stream: bool


def make_parameters(tools: list[ToolDefinition], schema: Mapping[str, Any] | None) -> ModelRequestParameters:
    """Tools and the wanted form. The tool that Pydantic AI gives its answers by is a form, not a tool."""
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    plain = [tool for tool in tools if tool.name != FINAL]
    final = [tool for tool in tools if tool.name == FINAL]
    if final:
        return ModelRequestParameters(
            function_tools=plain, output_mode="tool", output_tools=final, allow_text_output=False
        )
    if schema is not None:
        wanted = OutputObjectDefinition(json_schema=dict(schema), name=str(schema.get("title", "answer")))
        return ModelRequestParameters(function_tools=plain, output_mode="native", output_object=wanted)
    return ModelRequestParameters(function_tools=plain)


def text_of(content: Any) -> str:
    """Plain text, or the text parts of a list."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRequest(f"content is a {type(content).__name__}; it is text or a list of parts")
    parts = [part for part in content if isinstance(part, dict)]
    for part in parts:
        if "text" not in part and part.get("type") != "refusal":
            raise BadRequest(
                f"a part of the content has the type {part.get('type')!r}; only text can be asked about here"
            )
    return "\n".join(str(part.get("text", "")) for part in parts)


def settings_of(body: Mapping[str, Any], limit: int | None) -> ModelSettings:
    """What the protocols say alike of how a model is to answer; `limit` is that of its tokens."""
    settings: ModelSettings = {}
    if limit:
        settings["max_tokens"] = limit
    for name in SETTINGS:
        if body.get(name) is not None:
            settings[name] = body[name]
    stop = body.get("stop") or body.get("stop_sequences")
    if stop:
        settings["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    choice = _tool_choice(body.get("tool_choice"))
    if choice is not None and body.get("tools"):
        settings["tool_choice"] = choice
    return settings


def _tool_choice(said: Any) -> Literal["none", "required"] | list[str] | None:
    """Which tools must be called: said by a word, or by an object that may name one."""
    match said.get("type") if isinstance(said, dict) else said:
        case "none":
            return "none"
        case "required" | "any":
            return "required"
        case "function" | "tool":
            return [str((said.get("function") or said).get("name"))]
    return None


def pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n"


def field(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field of the body. Raises BadRequest where it is missing or of another type."""
    value = body.get(name)
    if not isinstance(value, kind):
        raise BadRequest(f"{name} is {json.dumps(value)[:80]}; it must be a {kind.__name__}")
    return value


def key_of(headers: Mapping[str, str]) -> str:
    """The key that a request comes with, in either way in which clients send it."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
