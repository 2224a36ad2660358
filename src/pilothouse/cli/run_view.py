"""How one run looks in a terminal: its timeline from top to bottom, and a line per record while it is followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pilothouse.cli import output

MARKS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "retryable": ("↻", "yellow")}
TRACEBACK_LINES = 40
ENGINE = "/pilothouse/engine/"


def show_timeline(out: Console, found: dict[str, Any]) -> None:
    """Prints the sections that have something to say."""
    run = found["run"]
    title = Text.assemble(("run ", "dim"), (run["id"], "bold"), "  ", output.state(run["state"]))
    out.print(title, soft_wrap=True)
    out.print(Padding(_head(run), (0, 0, 1, 2), expand=False))
    for name, section in _sections(found):
        out.print(Text(name, style="bold"))
        out.print(Padding(section, (0, 0, 1, 2), expand=False))
    told = found["why"]
    out.print(Text.assemble(("next  ", "bold"), told["next"]), soft_wrap=True)


def _sections(found: dict[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    if found["attempts"]:
        yield "attempts", _attempts(found["attempts"])
    if found["steps"]:
        yield "steps", _steps(found["steps"], found["run"]["attempt"])
    if found["waits"]:
        yield "waits for", Text("\n".join(f"{wait['kind']} {wait['name']}" for wait in found["waits"]))
    if found["signals"]:
        yield "signals", _signals(found["signals"])
    if found["children"]:
        yield "children", _children(found["children"])
    if found["logs"]:
        yield "log", _logs(found["logs"])
    if found["run"]["error"]:
        yield "error", _error(found["run"]["error"])
    if found["run"]["output"] is not None:
        yield "output", Text(output.shorten(found["run"]["output"], 400))


def _head(run: dict[str, Any]) -> Table:
    progress = f"{run['progress_done']} of {run['progress_total'] or '?'}" if run["progress_done"] is not None else None
    pairs = (
        ("agent", run["agent"]),
        ("lane", f"{run['lane']}, priority {run['priority']}"),
        ("tenant", run["tenant"] if run["tenant"] != "default" else None),
        ("input", output.shorten(run["input"], 200)),
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
    )
    return output.facts(pairs)


def _attempts(attempts: list[dict[str, Any]]) -> Table:
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
            output.shorten(f"{error['type']}: {error['message']}", 60) if error else "",
        )
    return made


def _steps(steps: list[dict[str, Any]], current: int) -> Table:
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
            _result(step),
        )
    return made


def _result(step: dict[str, Any]) -> str:
    if step["error"]:
        return output.shorten(f"{step['error']['type']}: {step['error']['message']}", 60)
    if step["kind"] == "timer":
        return "an instant"
    if step["kind"] == "child" and isinstance(step["result"], list):
        count = len(step["result"])
        return str(step["result"][0]) if count == 1 else f"{count} runs"
    return output.shorten(step["result"], 60)


def _signals(signals: list[dict[str, Any]]) -> Table:
    made = output.table("name", "at", "by", ("payload", "fold"))
    for signal in signals:
        at = output.clock_time(signal["created_at"])
        made.add_row(signal["name"], at, signal["principal"], output.shorten(signal["payload"], 60))
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
    return Text.assemble(at, f"  {line['level']}  {line['message']}", (_fields(line), "dim"))


def _fields(line: dict[str, Any]) -> str:
    return "".join(f"  {name}={output.shorten(value, 40)}" for name, value in line["fields"].items())


def _error(error: dict[str, Any]) -> Text:
    text = Text.assemble((f"{error['type']}: {error['message']}", "red"))
    if error.get("step"):
        text.append(f"\nin step {error['step']!r}")
    lines = list(_users_frames(str(error.get("traceback", "")).rstrip().splitlines()))
    if len(lines) > TRACEBACK_LINES:
        lines = ["…", *lines[-TRACEBACK_LINES:]]
    if lines:
        text.append("\n" + "\n".join(lines), style="dim")
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
        line.append(f"  {record['reason']}")
    return line


def _style(record: dict[str, Any]) -> str:
    return output.STATE_STYLES.get(record["after"] or "", "")
