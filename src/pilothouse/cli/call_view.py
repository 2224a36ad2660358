"""How a run's calls of models and tools look in a terminal, and what they cost."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from pilothouse.cli import output
from pilothouse.domain.limits import Unit
from pilothouse.domain.words import counted

OUTCOME_STYLES = {"answered": "green", "cached": "cyan", "failed": "red", "skipped": "yellow", "succeeded": "green"}
CENT, DOLLAR = 10_000, 1_000_000


def usd(microusd: int) -> str:
    """Dollars, with as many decimals as a small amount needs."""
    decimals = 2 if not microusd or microusd >= DOLLAR else 4 if microusd >= CENT else 6
    return f"${microusd / DOLLAR:,.{decimals}f}"


def found_cost(found: dict[str, Any]) -> str | None:
    """What a run has cost so far; None where nothing that costs was asked."""
    calls = [*found["model_calls"], *found["tool_calls"]]
    if not calls:
        return None
    asked = sum(1 for call in found["model_calls"] if call["outcome"] == "answered")
    total = usd(sum(call["cost_microusd"] for call in calls))
    tools = counted(len(found["tool_calls"]), "tool call")
    return f"{total} for {counted(asked, 'model call')}, {tools}"


def limits_met(budget: dict[str, Any]) -> str:
    """The limits that a run has met, and what they did to it."""
    met = [f"{each['did']} by {_whose(each)}" for each in budget["limits"]]
    if budget["degraded"]:
        met.append(f"{budget['degraded']} questions to the smaller route")
    return "; ".join(met)


def _whose(limit: dict[str, Any]) -> str:
    unit = "dollars" if limit["unit"] == Unit.MICROUSD else limit["unit"]
    is_own = str(limit["account"]).startswith("run:")
    return f"its own limit on {unit}" if is_own else f"the limit on {unit} of {limit['account']} for {limit['period']}"


def said(response: Any) -> str:
    """What a model said, in a line: its text, or the tools that it wants called."""
    if not isinstance(response, dict):
        return str(response)
    parts = response.get("parts", ())
    texts = [str(part["content"]) for part in parts if part.get("part_kind") == "text"]
    calls = [f"{part['tool_name']}({_arguments(part)})" for part in parts if part.get("part_kind") == "tool-call"]
    return " ".join(texts + calls)


def _arguments(part: dict[str, Any]) -> str:
    args = part.get("args") or {}
    return args if isinstance(args, str) else ", ".join(f"{name}={value!r}" for name, value in args.items())


def model_calls(calls: list[dict[str, Any]]) -> Table:
    made = output.table(
        ("step", "fold"),
        "model",
        "route",
        "outcome",
        ("tokens in", "right"),
        ("out", "right"),
        ("took", "right"),
        ("cost", "right"),
        ("reason", "fold"),
    )
    for call in calls:
        made.add_row(
            call["key"],
            call["model"],
            call["route"],
            Text(call["outcome"], style=OUTCOME_STYLES[call["outcome"]]),
            _tokens(call["input_tokens"], call["cache_read_tokens"], call["cache_write_tokens"]),
            _tokens(call["output_tokens"], call["reasoning_tokens"]),
            _took(call["latency_us"]),
            usd(call["cost_microusd"]),
            output.shorten(f"{call['reason']}: {call['message']}", 120) if call["reason"] else "",
        )
    return made


def tool_calls(calls: list[dict[str, Any]]) -> Table:
    made = output.table(
        ("step", "fold"),
        "tool",
        "effect",
        "by",
        "outcome",
        ("took", "right"),
        ("cost", "right"),
        ("arguments", "fold"),
        ("result", "fold"),
    )
    for call in calls:
        made.add_row(
            call["key"],
            call["tool"],
            call["effect"],
            call["called_by"],
            Text(call["outcome"], style=OUTCOME_STYLES[call["outcome"]]),
            _took(call["latency_us"]),
            usd(call["cost_microusd"]),
            output.shorten(call["arguments"], 60),
            output.shorten(_came_to(call), 60),
        )
    return made


def _came_to(call: dict[str, Any]) -> Any:
    """A call's result or error; of one that was put off there is neither."""
    if call["error"] is not None:
        return call["error"]["message"]
    return call["result"] if call["outcome"] == "succeeded" else ""


def effects_table(effects: list[dict[str, Any]]) -> Table:
    made = output.table(
        ("step", "fold"), "tool", "state", ("tries", "right"), "effect", ("said by", "fold"), ("note", "fold")
    )
    for effect in effects:
        made.add_row(
            effect["key"],
            effect["tool"],
            output.state(effect["state"]),
            str(effect["tries"]),
            effect["id"],
            effect["resolved_by"] or "",
            output.shorten(effect["note"] or "", 60),
        )
    return made


def _tokens(fresh: int, *others: int) -> str:
    return f"{fresh + sum(others):,}" if any(others) else f"{fresh:,}"


def _took(latency_us: int) -> str:
    return f"{latency_us / 1_000_000:.2f} s" if latency_us >= 1_000_000 else f"{latency_us / 1000:.1f} ms"
