"""How one step of a run looks in a terminal: what was asked, what was said, and the calls that it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.call_view import model_calls, tool_calls
from pilothouse.cli.run_view import error_text
from pilothouse.cli.safe import safe
from pilothouse.cli.waterfall_view import MARKS
from pilothouse.control.said import answer_of, messages_of
from pilothouse.errors import NotFound

INDENT = 2
KEYS_NAMED = 30


def step_of(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One step of a timeline, with its request decoded and its calls. Raises NotFound, which names the steps."""
    run, steps = found["run"], {step["key"]: step for step in found["steps"]}
    if key not in steps:
        known = ", ".join([*steps][:KEYS_NAMED]) or "none yet"
        raise NotFound(f"run {run['id']} has no step {key!r}; its steps: {known}")
    step: dict[str, Any] = steps[key]
    return step | {
        "request": None if step["request"] is None else payloads.decode(step["request"]),
        "model_calls": [call for call in found["model_calls"] if call["key"] == key],
        "tool_calls": [call for call in found["tool_calls"] if call["key"] == key],
    }


def show_step(out: Console, step: Mapping[str, Any]) -> None:
    """Prints a step whole: every text as it was, however long."""
    mark, style = MARKS[step["state"]]
    title = Text.assemble(("step ", "dim"), (safe(step["key"]), "bold"), "  ", (f"{mark} {step['state']}", style))
    out.print(title, soft_wrap=True)
    pairs = (
        ("kind", step["kind"]),
        ("by", f"attempt {step['attempt']}, at try {step['tries']}"),
        ("started", output.clock_time(step["started_at"])),
        ("took", output.duration(step["started_at"], step["finished_at"])),
    )
    out.print(Padding(output.facts(pairs), (0, 0, 0, INDENT), expand=False))
    for calls, show, spare in ((step["model_calls"], model_calls, ("route",)), (step["tool_calls"], tool_calls, ())):
        if calls:
            table = output.fitted(show(calls), out.width - INDENT, spare=spare)
            out.print(Padding(table, (1, 0, 0, INDENT), expand=False))
    for heading, text in _texts(step):
        _section(out, heading, Text(safe(text)))
    if step["error"]:
        _section(out, "error", error_text(step["error"]))


def _section(out: Console, heading: str, text: Text) -> None:
    out.print(f"\n{heading}", style="bold", soft_wrap=True)
    out.print(Padding(text, (0, 0, 0, INDENT), expand=False))


def _texts(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was asked and what came of it: who said what where a model was asked."""
    request = step["request"]
    if step["kind"] == "model" and isinstance(request, dict):
        yield from messages_of(request)
        yield from answer_of(step["result"])
    else:
        asked = request.get("arguments", request) if isinstance(request, dict) else request
        yield "asked", _text(asked)
        if step["result"] is not None:
            yield "result", _text(step["result"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else output.pretty(value)
