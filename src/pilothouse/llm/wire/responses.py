"""OpenAI's responses: https://platform.openai.com/docs/api-reference/responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.llm.wire.openai import error
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

__all__ = ["error", "events", "read", "render"]

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def read(body: Mapping[str, Any]) -> WireRequest:
    """Raises BadRequest."""
    if body.get("previous_response_id") or body.get("conversation"):
        raise BadRequest("answers are not kept here for later requests; send the whole conversation as input")
    form = (body.get("text") or {}).get("format") or {}
    return WireRequest(
        model=field(body, "model", str),
        messages=_messages(body.get("instructions"), body.get("input")),
        parameters=make_parameters(
            [_tool(tool) for tool in body.get("tools") or ()],
            form.get("schema") if form.get("type") == "json_schema" else None,
        ),
        settings=settings_of(body, body.get("max_output_tokens")),
        is_stream=bool(body.get("stream")),
    )


def _tool(tool: Mapping[str, Any]) -> ToolDefinition:
    from pydantic_ai.tools import ToolDefinition

    if tool.get("type") != "function":
        raise BadRequest(f"a tool has the type {tool.get('type')!r}; only functions can be offered here")
    return ToolDefinition(
        name=field(tool, "name", str),
        description=tool.get("description"),
        parameters_json_schema=tool.get("parameters") or {"type": "object", "properties": {}},
    )


def _messages(instructions: str | None, input: Any) -> list[ModelMessage]:
    from pydantic_ai import messages as made

    items = [{"role": "user", "content": input}] if isinstance(input, str) else field({"input": input}, "input", list)
    messages: list[ModelMessage] = []
    if instructions:
        messages.append(made.ModelRequest([made.SystemPromptPart(instructions)]))
    names: dict[str, str] = {}
    for item in items:
        part = _part(item, names)
        if part is None:
            continue
        kind = made.ModelResponse if isinstance(part, made.TextPart | made.ToolCallPart) else made.ModelRequest
        if messages and isinstance(messages[-1], kind):  # calls side by side are items of their own, and one answer
            messages[-1].parts = [*messages[-1].parts, part]
        else:
            messages.append(kind([part]))
    return messages


def _part(item: Mapping[str, Any], names: dict[str, str]) -> Any:
    """One item; `names` gathers which tool each call was for, since its result does not say."""
    from pydantic_ai import messages as made

    match item.get("type", "message"):
        case "message":
            parts = {
                "system": made.SystemPromptPart,
                "developer": made.SystemPromptPart,
                "user": made.UserPromptPart,
                "assistant": made.TextPart,
            }
            role = str(item.get("role"))
            if role not in parts:
                raise BadRequest(f"a message has the role {role!r}")
            return parts[role](text_of(item.get("content")))
        case "function_call":
            names[item["call_id"]] = item["name"]
            return made.ToolCallPart(item["name"], item["arguments"], item["call_id"])
        case "function_call_output":
            id = str(item.get("call_id"))
            return made.ToolReturnPart(names.get(id, "unknown"), text_of(item.get("output")), id)
        case "reasoning":
            return None
        case kind:
            raise BadRequest(f"an item of the input has the type {kind!r}")


def render(response: ModelResponse, model: str) -> dict[str, Any]:
    reason = INCOMPLETE.get(response.finish_reason or "")
    return _envelope(model) | {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": _items(response),
        "usage": _usage(response),
    }


def events(response: ModelResponse, model: str) -> Iterator[str]:
    """The answer as a stream."""
    whole, numbers = render(response, model), count()

    def say(kind: str, **facts: Any) -> str:
        return event({"type": kind, "sequence_number": next(numbers), **facts}, kind)

    begun = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield say("response.created", response=begun)
    yield say("response.in_progress", response=begun)
    for place, item in enumerate(whole["output"]):
        at = {"output_index": place, "item_id": item["id"]}
        if item["type"] == "message":
            part = {"content_index": 0, **at}
            (text,) = item["content"]
            yield say("response.output_item.added", output_index=place, item=item | _under_way(content=[]))
            yield say("response.content_part.added", **part, part=text | {"text": ""})
            for piece in pieces(text["text"]):
                yield say("response.output_text.delta", **part, delta=piece, logprobs=[])
            yield say("response.output_text.done", **part, text=text["text"], logprobs=[])
            yield say("response.content_part.done", **part, part=text)
        else:
            yield say("response.output_item.added", output_index=place, item=item | _under_way(arguments=""))
            for piece in pieces(item["arguments"]):
                yield say("response.function_call_arguments.delta", **at, delta=piece)
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield say("response.function_call_arguments.done", **at, **done)
        yield say("response.output_item.done", output_index=place, item=item)
    yield say(f"response.{whole['status']}", response=whole)


def _under_way(**changes: Any) -> dict[str, Any]:
    return {"status": "in_progress", **changes}


def _items(response: ModelResponse) -> list[dict[str, Any]]:
    """Their ids say the same for the same answer: a program sends them back, and asks the same when it runs again."""
    items: list[dict[str, Any]] = []
    if response.text:
        text = {"type": "output_text", "text": response.text, "annotations": [], "logprobs": []}
        items.append(
            {"type": "message", "id": f"msg_{payloads.digest(response.text)}", "role": "assistant", "content": [text]}
        )
    items += [
        {
            "type": "function_call",
            "id": f"fc_{call.tool_call_id}",
            "call_id": call.tool_call_id,
            "name": call.tool_name,
            "arguments": call.args_as_json_str(),
        }
        for call in response.tool_calls
    ]
    return [item | {"status": "completed"} for item in items]


def _envelope(model: str) -> dict[str, Any]:
    return {
        "id": f"resp_{new_id()}",
        "object": "response",
        "created_at": 0,
        "model": model,
        "error": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }


def _usage(response: ModelResponse) -> dict[str, Any]:
    usage = response.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.details.get("reasoning_tokens", 0)},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
