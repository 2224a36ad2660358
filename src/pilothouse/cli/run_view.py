"""How one run looks in a terminal: its timeline from top to bottom, and a line per record while it is followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.call_view import effects_table, found_cost, limits_met, model_calls, said, tool_calls, usd
from pilothouse.cli.safe import safe
from pilothouse.cli.waterfall_view import MARKS, SPANS_SHOWN, bars, costs, where

TRACEBACK_LINES = 40
INDENT = 2
TEXT_SHOWN = 1000
NO_CUT = 1_000_000
"""By how much a limit grows that is none any more."""
ENGINE = "/pilothouse/engine/"


def show_timeline(out: Console, found: dict[str, Any], *, full: bool = False) -> None:
    """Prints the sections that have something to say; `full`: whole texts, however long."""
    run = found["run"]
    title = Text.assemble(("run ", "dim"), (run["id"], "bold"), "  ", output.state(run["state"]))
    out.print(title, soft_wrap=True)
    shown = _Shown(out.width - INDENT, NO_CUT if full else 1)
    _section(out, _head(found, shown))
    _section(out, bars(found["waterfall"], shown.width, most=None if full else SPANS_SHOWN))
    show_sums(out, found["waterfall"])
    for name, section, spare in _sections(found, shown):
        out.print(name, style="bold")
        _section(out, output.fitted(section, shown.width, spare=spare) if isinstance(section, Table) else section)
    if not full and (shown.cuts or len(found["waterfall"]["spans"]) > SPANS_SHOWN):
        told = f"not everything is shown; all of it: `pilothouse runs show {run['id']} --full`, one step: `--step KEY`"
        out.print(told, style="dim", soft_wrap=True)
    _reasons(out, found["why"], run["state"])
    out.print(Text.assemble(("next  ", "bold"), by_line(found["why"]["next"])), soft_wrap=True)


def show_sums(out: Console, found: dict[str, Any]) -> None:
    """Prints where a run's time and money went."""
    width = out.width - INDENT
    _section(out, where(found, width))
    spent = costs(found)
    if spent.row_count:
        _section(out, output.fitted(spent, width, spare=("took", "calls")))


def _section(out: Console, section: RenderableType) -> None:
    out.print(Padding(section, (0, 0, 1, INDENT), expand=False))


def _reasons(out: Console, told: dict[str, Any], state: str) -> None:
    """Why it is not done, where that is not told by its error already."""
    if state not in ("succeeded", "failed", "cancelled"):
        for reason in told["reasons"]:
            out.print(Text.assemble(("why   ", "bold"), reason), soft_wrap=True)


def by_line(told: str) -> str:
    """What to do next; of several commands each begins a line, so that it can be read and copied."""
    return told.replace("`, `", "`,\n      `")


class _Shown:
    """How much of each value is shown, and how many were cut."""

    def __init__(self, width: int, factor: int) -> None:
        self.width = width
        self.cuts = 0
        self._factor = factor

    def short(self, value: Any, limit: int) -> str:
        text = output.shorten(value, limit * self._factor)
        self.cuts += text.endswith("…")
        return text

    def whole(self, value: Any, limit: int) -> Text:
        """JSON over several lines, up to a length."""
        text = value if isinstance(value, str) else output.pretty(value)
        if len(text) <= limit * self._factor:
            return Text(safe(text))
        self.cuts += 1
        left = len(text) - limit
        return Text.assemble(safe(text[:limit]), (f"… and {left:,} more characters", "dim"))


def _sections(found: dict[str, Any], shown: _Shown) -> Iterator[tuple[str, RenderableType, Sequence[str]]]:
    run = found["run"]
    for key, (name, show, spare) in SECTIONS.items():
        if found[key]:
            yield name, show(found[key], run, shown), spare
    if run["error"]:
        yield "error", error_text(run["error"]), ()
    if run["output"] is not None:
        yield "output", shown.whole(run["output"], TEXT_SHOWN), ()


def _head(found: dict[str, Any], shown: _Shown) -> Table:
    run = found["run"]
    progress = f"{run['progress_done']} of {run['progress_total'] or '?'}" if run["progress_done"] is not None else None
    pairs = (
        ("agent", run["agent"]),
        ("lane", f"{run['lane']}, priority {run['priority']}"),
        ("tenant", run["tenant"] if run["tenant"] != "default" else None),
        ("input", shown.short(run["input"], 200)),
        ("parent", run["parent_id"]),
        ("code", run["fingerprint"]),
        ("state version", run["state_version"] if (run["state_version"] or 1) > 1 else None),
        ("submitted", output.clock_time(run["created_at"])),
        ("due", output.clock_time(run["available_at"])),
        ("deadline", output.clock_time(run["deadline_at"])),
        ("took", output.duration(run["started_at"], run["finished_at"])),
        ("progress", progress),
        ("failures", f"{run['failures']} of {run['max_attempts']}" if run["failures"] else None),
        ("losses", f"{run['losses']} of {run['max_losses']}" if run["losses"] else None),
        ("cost", found_cost(found)),
        ("reserved", usd(found["budget"]["reserved_microusd"]) if found["budget"]["reserved_microusd"] else None),
        ("limits", limits_met(found["budget"])),
    )
    return output.facts(pairs)


def _attempts(attempts: list[dict[str, Any]], shown: _Shown) -> Table:
    made = output.table(
        "#",
        "outcome",
        "worker",
        "started",
        ("took", "right"),
        ("executed", "right"),
        ("replayed", "right"),
        ("error", "fold"),
    )
    for attempt in attempts:
        error = attempt["error"] or {}
        made.add_row(
            str(attempt["number"]),
            output.state(attempt["state"]),
            attempt["worker_id"][-8:],
            output.clock_time(attempt["started_at"]),
            output.duration(attempt["started_at"], attempt["finished_at"]),
            str(attempt["steps_executed"]),
            str(attempt["steps_replayed"]),
            shown.short(f"{error['type']}: {error['message']}", 60) if error else "",
        )
    return made


def _steps(steps: list[dict[str, Any]], current: int, shown: _Shown) -> Table:
    made = output.table(
        "", ("step", "fold"), "kind", ("tries", "right"), ("took", "right"), ("by attempt", "fold"), ("result", "fold")
    )
    for step in steps:
        mark, style = MARKS[step["state"]]
        by = f"{step['attempt']}" + (", kept since" if step["attempt"] < current else "")
        made.add_row(
            Text(mark, style=style),
            step["key"],
            step["kind"],
            str(step["tries"]),
            output.duration(step["started_at"], step["finished_at"]),
            by,
            _result(step, shown),
        )
    return made


def _result(step: dict[str, Any], shown: _Shown) -> str:
    if step["kind"] == "model" and not step["error"]:
        return shown.short(said(step["result"]), 60)
    if step["error"]:
        return shown.short(f"{step['error']['type']}: {step['error']['message']}", 60)
    if step["kind"] == "timer":
        return "an instant"
    if step["kind"] == "child" and isinstance(step["result"], list):
        count = len(step["result"])
        return str(step["result"][0]) if count == 1 else f"{count} runs"
    return shown.short(step["result"], 60)


def _approvals(approvals: list[dict[str, Any]], shown: _Shown) -> Table:
    made = output.table("approval", "state", ("what", "fold"), "asked", "decided", "by", ("note", "fold"))
    for row in approvals:
        asked, at = output.clock_time(row["requested_at"]), output.clock_time(row["decided_at"])
        by, note = row["decided_by"] or "", shown.short(row["note"] or "", 60)
        made.add_row(row["id"], output.state(row["state"]), shown.short(row["title"], 60), asked, at, by, note)
    return made


def _signals(signals: list[dict[str, Any]], shown: _Shown) -> Table:
    made = output.table("name", "at", "by", ("payload", "fold"))
    for signal in signals:
        at = output.clock_time(signal["created_at"])
        made.add_row(signal["name"], at, signal["principal"], shown.short(signal["payload"], 60))
    return made


def _children(children: list[dict[str, Any]]) -> RenderableType:
    counts = Counter(child["state"] for child in children)
    summary = Text(", ").join(Text.assemble(f"{count} ", output.state(name)) for name, count in sorted(counts.items()))
    if len(children) > 10:
        return summary
    made = output.table("run", "agent", "state")
    for child in reversed(children):
        made.add_row(child["id"], child["agent"], output.state(child["state"]))
    return made


def _logs(logs: list[dict[str, Any]]) -> Text:
    return Text("\n").join(log_line(line) for line in logs)


def log_line(line: dict[str, Any]) -> Text:
    """What the run wrote with `ctx.log`."""
    at = (output.clock_time(line["at"]), "dim")
    return Text.assemble(at, safe(f"  {line['level']}  {line['message']}"), (_fields(line), "dim"))


def _fields(line: dict[str, Any]) -> str:
    return "".join(f"  {name}={output.shorten(value, 40)}" for name, value in line["fields"].items())


def error_text(error: dict[str, Any]) -> Text:
    """A failure with the user's part of its traceback."""
    text = Text.assemble((safe(f"{error['type']}: {error['message']}"), "red"))
    if error.get("step"):
        text.append(f"\nin step {error['step']!r}")
    lines = list(_users_frames(str(error.get("traceback", "")).rstrip().splitlines()))
    if len(lines) > TRACEBACK_LINES:
        lines = ["…", *lines[-TRACEBACK_LINES:]]
    if lines:
        text.append(safe("\n" + "\n".join(lines)), style="dim")
    return text


def _users_frames(lines: list[str]) -> Iterator[str]:
    """A traceback without what lies between the user's handler and their step; `--json` has all of it."""
    is_engine = False
    for line in lines:
        if line.startswith("  File "):
            is_engine = ENGINE in line
        elif not line.startswith("    "):
            is_engine = False
        if not is_engine:
            yield line


def follow_line(record: dict[str, Any]) -> Text:
    """One record of the audit as a line."""
    line = Text.assemble(
        (output.clock_time(record["at"]), "dim"), "  ", (record["action"], _style(record)), f"  {record['principal']}"
    )
    if record["attempt"] is not None:
        line.append(f"  attempt {record['attempt']}", style="dim")
    if record["reason"]:
        line.append(safe(f"  {record['reason']}"))
    return line


def _style(record: dict[str, Any]) -> str:
    return output.STATE_STYLES.get(record["after"] or "", "")


Section = Callable[[list[dict[str, Any]], dict[str, Any], _Shown], RenderableType]

SECTIONS: dict[str, tuple[str, Section, Sequence[str]]] = {
    "attempts": ("attempts", lambda rows, _, shown: _attempts(rows, shown), ("replayed", "executed", "worker")),
    "steps": ("steps", lambda rows, run, shown: _steps(rows, run["attempt"], shown), ("by attempt", "tries", "took")),
    "model_calls": ("models", lambda rows, *_: model_calls(rows), ("route", "out", "tokens in", "took")),
    "tool_calls": ("tools", lambda rows, *_: tool_calls(rows), ("by", "took", "cost")),
    "effects": ("effects", lambda rows, *_: effects_table(rows), ("tries", "said by", "note")),
    "waits": ("waits for", lambda rows, *_: Text("\n".join(f"{row['kind']} {row['name']}" for row in rows)), ()),
    "approvals": ("approvals", lambda rows, _, shown: _approvals(rows, shown), ("note", "by", "asked", "decided")),
    "signals": ("signals", lambda rows, _, shown: _signals(rows, shown), ("by",)),
    "children": ("children", lambda rows, *_: _children(rows), ("agent",)),
    "logs": ("log", lambda rows, *_: _logs(rows), ()),
}
"""The sections of a timeline by what they show: their heading, how they look, and the columns that may be left out."""
