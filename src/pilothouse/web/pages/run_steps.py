"""What a step was asked and has answered, for people: what was said where it is a model's, arguments where a tool's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from pilothouse import payloads
from pilothouse.control.said import Said, answer_of, messages_of
from pilothouse.web.pages.wording import cut, plain, pretty

ONE_TEXT = 6_000
"""Characters of one text; the whole is behind a link."""

ALL_TEXTS = 200_000
"""Characters of all texts of a page; beyond it each is only begun."""

BEGUN = 300
MESSAGES_SHOWN = 8
UNREADABLE = object()


class Texts:
    """The texts of one page, which together stay within a bound."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._left = ALL_TEXTS

    def text(self, text: str) -> dict[str, Any]:
        """A text as it is shown, and whether that is all of it."""
        most = ONE_TEXT if self._left > 0 else BEGUN
        self._left -= min(len(text), most)
        return {"text": cut(plain(text), most), "is_cut": len(text) > most}

    def value(self, text: str | None, length: int | None, name: str, key: str | None = None) -> dict[str, Any] | None:
        """A JSON text of which `length` characters are stored; None where there is none."""
        if text is None or length is None:
            return None
        value = read(text, length)
        shown = self.text(text if value is UNREADABLE else pretty(value))
        is_cut = shown["is_cut"] or length > len(text)
        return shown | {"is_cut": is_cut, "length": length, "href": self.address(name, key)}

    def address(self, name: str, key: str | None = None) -> str:
        query = "" if key is None else "?" + urlencode({"step": key})
        return f"/runs/{self._run_id}/text/{name}{query}"


def read(text: str, length: int) -> Any:
    """What a JSON text says; UNREADABLE where it was cut."""
    try:
        return UNREADABLE if length > len(text) else payloads.decode(text)
    except ValueError:
        return UNREADABLE


def shown_steps(found: Mapping[str, Any], texts: Texts) -> dict[str, dict[str, Any]]:
    """The steps by key, each with what its line opens to."""
    calls: dict[str, list[Mapping[str, Any]]] = {}
    for call in found["model_calls"]:
        calls.setdefault(call["key"], []).append(call)
    return {key: _step(step, calls.get(key, []), texts) for key, step in found["steps"].items()}


def _step(step: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], texts: Texts) -> dict[str, Any]:
    key = step["key"]
    request = texts.value(step["request"], step["request_length"], "request", key)
    result = texts.value(step["result"], step["result_length"], "result", key)
    asked = _value(step, "request")
    made = dict(step) | {"calls": calls, "messages": [], "earlier": 0, "said": [], "tools": [], "output_form": None}
    if step["kind"] == "model" and isinstance(asked, dict):
        messages = list(messages_of(asked))
        shown = messages[-MESSAGES_SHOWN:]
        made["earlier"] = len(messages) - len(shown)
        made["messages"] = [{"role": role, **texts.text(text)} for role, text in shown]
        made["said"] = [{"role": role, **texts.text(text)} for role, text in _answer(step)]
        made["tools"] = [str(each.get("name", each)) for each in asked.get("tools") or () if isinstance(each, dict)]
        made["asked_model"] = asked.get("model")
    if step["kind"] == "tool" and isinstance(asked, dict) and "arguments" in asked:
        request = (request or {}) | texts.text(pretty(asked["arguments"]))
    return made | {"request": request, "result": result, "error": error_of(step["error"])}


def error_of(error: Any) -> dict[str, Any] | None:
    """A failure with all that one may have."""
    return {"type": "", "message": "", "step": None, "traceback": "", **error} if isinstance(error, dict) else None


def _value(step: Mapping[str, Any], name: str) -> Any:
    text = step[name]
    return None if text is None else read(text, step[f"{name}_length"])


def _answer(step: Mapping[str, Any]) -> Iterator[Said]:
    response = _value(step, "result")
    return iter(()) if response is UNREADABLE else answer_of(response)
