"""Anthropic's messages: https://docs.anthropic.com/en/api/messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pilothouse.clock import new_id
from pilothouse.llm.wire.request import (
    BadRequest,
    WireRequest,
    event,
    field,
    make_parameters,
    pieces,
    settings_of,
    text_of,
)

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.tools import ToolDefinition

FINISH = {"tool_call": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
ERRORS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def read(body: Mapping[str, Any]) -> WireRequest:
    """Raises BadRequest."""
    return WireRequest(
        model=field(body, "model", str),
        messages=_messages(body.get("system"), field(body, "messages", list)),
        parameters=make_parameters([_tool(tool) for tool in body.get("tools") or ()], None),
        settings=settings_of(body, field(body, "max_tokens", int)),
        is_stream=bool(body.get("stream")),
    )


def _tool(tool: Mapping[str, Any]) -> ToolDefinition:
    from pydantic_ai.tools import ToolDefinition

    return ToolDefinition(
        name=field(tool, "name", str),
        description=tool.get("description"),
        parameters_json_schema=tool.get("input_schema") or {"type": "object", "properties": {}},
    )


def _messages(system: Any, said: list[Any]) -> list[ModelMessage]:
    from pydantic_ai import messages as made

    names: dict[str, str] = {}
    head: list[ModelMessage] = [made.ModelRequest([made.SystemPromptPart(text_of(system))])] if system else []
    return head + [_message(item, names) for item in said if isinstance(item, dict)]


def _message(item: Mapping[str, Any], names: dict[str, str]) -> ModelMessage:
    """One message; `names` gathers which tool each call was for, since its result does not say."""
    from pydantic_ai import messages as made

    content = item.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    match item.get("role"):
        case "user":
            return made.ModelRequest([_request_part(block, names) for block in blocks])
        case "assistant":
            names.update({block["id"]: block["name"] for block in blocks if block.get("type") == "tool_use"})
            return made.ModelResponse([part for block in blocks if (part := _response_part(block)) is not None])
    raise BadRequest(f"a message has the role {item.get('role')!r}")


def _request_part(block: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    from pydantic_ai import messages as made

    if block.get("type") != "tool_result":
        return made.UserPromptPart(text_of([block]))
    id = str(block.get("tool_use_id"))
    text, name = text_of(block.get("content")), names.get(id, "unknown")
    return made.ToolReturnPart(name, text, id, outcome="failed" if block.get("is_error") else "success")


def _response_part(block: Mapping[str, Any]) -> Any:
    from pydantic_ai import messages as made

    match block.get("type"):
        case "text":
            return made.TextPart(str(block.get("text", "")))
        case "tool_use":
            return made.ToolCallPart(block["name"], block.get("input") or {}, block["id"])
    return None


def render(response: ModelResponse, model: str) -> dict[str, Any]:
    return _envelope(model) | {
        "content": _blocks(response),
        "stop_reason": _finish(response),
        "usage": _usage(response),
    }


def events(response: ModelResponse, model: str) -> Iterator[str]:
    """The answer as a stream."""
    usage = _usage(response)
    start = _envelope(model) | {"content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    yield event({"type": "message_start", "message": start}, "message_start")
    for place, block in enumerate(_blocks(response)):
        yield from _block_events(place, block)
    delta = {"stop_reason": _finish(response), "stop_sequence": None}
    yield event({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")


def _block_events(place: int, block: Mapping[str, Any]) -> Iterator[str]:
    is_text = block["type"] == "text"
    empty = {**block, "text": ""} if is_text else {**block, "input": {}}
    yield event({"type": "content_block_start", "index": place, "content_block": empty}, "content_block_start")
    for piece in pieces(block["text"] if is_text else json.dumps(block["input"], ensure_ascii=False)):
        delta = (
            {"type": "text_delta", "text": piece} if is_text else {"type": "input_json_delta", "partial_json": piece}
        )
        yield event({"type": "content_block_delta", "index": place, "delta": delta}, "content_block_delta")
    yield event({"type": "content_block_stop", "index": place}, "content_block_stop")


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an answer that is none."""
    kind = ERRORS.get(status, "overloaded_error" if status == 529 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _envelope(model: str) -> dict[str, Any]:
    return {"id": f"msg_{new_id()}", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}


def _blocks(response: ModelResponse) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": response.text}] if response.text else []
    for call in response.tool_calls:
        blocks.append({"type": "tool_use", "id": call.tool_call_id, "name": call.tool_name, "input": _input(call)})
    return blocks


def _input(call: Any) -> Any:
    try:
        return call.args_as_dict()
    except ValueError:
        return {"broken": call.args_as_json_str()}


def _finish(response: ModelResponse) -> str:
    if response.finish_reason in FINISH:
        return FINISH[response.finish_reason]
    return "tool_use" if response.tool_calls else "end_turn"


def _usage(response: ModelResponse) -> dict[str, int]:
    usage = response.usage
    return {
        "input_tokens": max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }
