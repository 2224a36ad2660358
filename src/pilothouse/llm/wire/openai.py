"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

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

FINISH = {"tool_call": "tool_calls", "length": "length", "content_filter": "content_filter"}


def read(body: Mapping[str, Any]) -> WireRequest:
    """Raises BadRequest."""
    form = body.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema") if form.get("type") == "json_schema" else None
    return WireRequest(
        model=field(body, "model", str),
        messages=_messages(field(body, "messages", list)),
        parameters=make_parameters([_tool(tool) for tool in body.get("tools") or ()], schema),
        settings=settings_of(body, body.get("max_completion_tokens") or body.get("max_tokens")),
        is_stream=bool(body.get("stream")),
    )


def _tool(tool: Mapping[str, Any]) -> ToolDefinition:
    from pydantic_ai.tools import ToolDefinition

    function = tool.get("function") or {}
    return ToolDefinition(
        name=field(function, "name", str),
        description=function.get("description"),
        parameters_json_schema=function.get("parameters") or {"type": "object", "properties": {}},
    )


def _messages(said: list[Any]) -> list[ModelMessage]:
    names: dict[str, str] = {}
    return [_message(item, names) for item in said if isinstance(item, dict)]


def _message(item: Mapping[str, Any], names: dict[str, str]) -> ModelMessage:
    """One message; `names` gathers which tool each call was for, since its result does not say."""
    from pydantic_ai import messages as made

    text = text_of(item.get("content"))
    match item.get("role"):
        case "system" | "developer":
            return made.ModelRequest([made.SystemPromptPart(text)])
        case "user":
            return made.ModelRequest([made.UserPromptPart(text)])
        case "tool":
            id = str(item.get("tool_call_id"))
            return made.ModelRequest([made.ToolReturnPart(names.get(id, "unknown"), text, id)])
        case "assistant":
            calls = [(call["id"], call["function"]) for call in item.get("tool_calls") or ()]
            names.update({id: function["name"] for id, function in calls})
            parts: list[Any] = [made.TextPart(text)] if text else []
            parts += [made.ToolCallPart(function["name"], function["arguments"], id) for id, function in calls]
            return made.ModelResponse(parts)
    raise BadRequest(f"a message has the role {item.get('role')!r}")


def render(response: ModelResponse, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": response.text}
    calls = _calls(response)
    if calls:
        message["tool_calls"] = calls
    return _envelope("chat.completion", model) | {
        "choices": [{"index": 0, "message": message, "finish_reason": _finish(response), "logprobs": None}],
        "usage": _usage(response),
    }


def events(response: ModelResponse, model: str) -> Iterator[str]:
    """The answer as a stream, with its usage in the last event."""
    head = _envelope("chat.completion.chunk", model)

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
        return event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(response.text or ""):
        yield chunk({"content": piece})
    for place, call in enumerate(_calls(response)):
        arguments = call["function"]["arguments"]
        yield chunk({"tool_calls": [{"index": place, **call, "function": {**call["function"], "arguments": ""}}]})
        for piece in pieces(arguments):
            yield chunk({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
    yield chunk({}, _finish(response))
    yield event(head | {"choices": [], "usage": _usage(response)})
    yield event("[DONE]")


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an answer that is none."""
    kinds = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    return {
        "error": {
            "message": message,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": None,
            "code": kinds.get(status),
        }
    }


def _calls(response: ModelResponse) -> list[dict[str, Any]]:
    return [
        {
            "id": call.tool_call_id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
        }
        for call in response.tool_calls
    ]


def _envelope(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{new_id()}", "object": kind, "created": 0, "model": model}


def _finish(response: ModelResponse) -> str:
    if response.finish_reason in FINISH:
        return FINISH[response.finish_reason]
    return "tool_calls" if response.tool_calls else "stop"


def _usage(response: ModelResponse) -> dict[str, Any]:
    usage = response.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.details.get("reasoning_tokens", 0)},
    }
