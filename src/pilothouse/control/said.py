"""What was said to a model and what it has answered, read from the request and the result of its step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Said = tuple[str, str]
"""Who, or what, and the text."""


def messages_of(asked: Mapping[str, Any]) -> Iterator[Said]:
    """Who has said what before the model answered."""
    if asked.get("system"):
        yield "system", _text(asked["system"])
    for message in asked.get("messages") or ():
        if not isinstance(message, dict):
            yield "message", _text(message)
        elif "parts" in message:
            yield from _parts(message["parts"])
        else:
            yield str(message.get("role", "message")), _text(message.get("content"))


def answer_of(response: Any) -> Iterator[Said]:
    """What the model said, and the tools that it called."""
    if isinstance(response, dict) and isinstance(response.get("parts"), list):
        yield from _parts(response["parts"])
    elif response is not None:
        yield "answer", _text(response)


def _parts(parts: Any) -> Iterator[Said]:
    for part in parts if isinstance(parts, list) else ():
        kind = str(part.get("part_kind", "part")) if isinstance(part, dict) else "part"
        if kind == "tool-call":
            yield f"calls {part.get('tool_name')}", _text(part.get("args"))
        elif isinstance(part, dict) and "content" in part:
            yield {"text": "answer"}.get(kind, kind), _text(part["content"])
        else:
            yield kind, _text(part)


def _text(content: Any) -> str:
    """A message's content as text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_text(each) for each in content)
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode()
