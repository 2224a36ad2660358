"""How agents look in a terminal: all of them on a line each, or one with its figures, limits and schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.budgets import limits_table
from pilothouse.cli.call_view import usd
from pilothouse.domain.words import counted

TONES: Mapping[str, str] = {"red": "bold red", "amber": "yellow", "green": "green", "grey": "dim"}
SPARE = ("waiting", "running", "cost today", "ended today", "queued")
INDENT = 2


def agents_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line per agent: how it does, and why, or what it is for where nothing is wrong."""
    made = output.table(
        "agent", "health", ("queued", "right"), ("running", "right"), ("waiting", "right"), ("ended today", "right"),
        ("success", "right"), ("cost today", "right"), ("why", "fold"),
    )  # fmt: skip
    for row in rows:
        counts = [f"{row['runs'][state]:,}" for state in ("queued", "running", "waiting")]
        about = "; ".join(row["health"]["reasons"]) or output.shorten(row["description"].partition("\n")[0])
        made.add_row(row["name"], _word(row), *counts, _ended(row), _share(row), usd(row["cost_microusd_today"]), about)
    return made


def show_agent(out: Console, row: dict[str, Any]) -> None:
    """Prints everything about one agent, how it does first."""
    out.print(Text.assemble((row["name"], "bold"), "  ", _word(row), f"  {row['description']}"))
    for reason in row["health"]["reasons"]:
        out.print(reason, style=TONES[row["health"]["tone"]])
    out.print(output.facts(list(_facts(row))))
    for heading, section, spare in _sections(row):
        out.print(f"\n{heading}", style="bold")
        out.print(Padding(output.fitted(section, out.width - INDENT, spare=spare), (0, 0, 0, INDENT), expand=False))
    for part in ("input", "output"):
        out.print(f"\n{part}", style="bold")
        out.print_json(payloads.encode(row[f"{part}_schema"]))


def _facts(row: dict[str, Any]) -> Iterator[tuple[str, object]]:
    counts = [f"{row['runs'][state]:,} {state}" for state in ("queued", "running", "waiting")]
    run_timeout, limit = row["run_timeout_seconds"], row["limit_microusd_of_a_day"]
    yield "runs", ", ".join(counts)
    if row["oldest_age_seconds"]:
        yield "oldest due", output.seconds(row["oldest_age_seconds"])
    yield "today", f"{_ended(row)} ended" + (f", {_share(row)} of them succeeded" if _share(row) else "")
    if row["measured_runs"]:
        middle, high = output.seconds(row["median_seconds"]), output.seconds(row["p95_seconds"])
        latest = counted(row["measured_runs"], "run")
        yield "latency", f"{middle} in the middle, {high} for 95 %, of the latest {latest} that ended"
    yield "cost today", usd(row["cost_microusd_today"]) + ("" if limit is None else f" of {usd(limit)}")
    yield "workers", f"{row['workers']:,} live"
    yield "app", row["app"]
    yield "lane", f"{row['lane']}, priority {row['priority']}"
    yield "attempts", f"{row['max_attempts']} that fail, {row['max_losses']} that are lost"
    yield "time-out", f"{output.seconds(row['timeout_seconds'])} for an attempt"
    yield "deadline", f"{output.seconds(run_timeout)} for the run" if run_timeout else None
    yield "at once", _at_once(row)
    yield "code", row["fingerprint"]
    yield "registered", f"{output.clock_time(row['registered_at'])} by {row['registered_by']}"


def _sections(row: dict[str, Any]) -> Iterator[tuple[str, Table, Sequence[str]]]:
    """The tables that have something to say: heading, table, and the columns that may be left out."""
    if row["versions"]:
        yield "versions, of its latest runs", _versions(row), ("last run",)
    if row["levels"]:
        yield "autonomy", _levels(row), ("code",)
    if row["breakers"]:
        yield "circuit breakers", _breakers(row), ("failures",)
    if row["budgets"]:
        yield "its own limits", limits_table(row["budgets"]), ("per hour",)


def _versions(row: dict[str, Any]) -> Table:
    made = output.table("code", ("runs", "right"), ("success", "right"), "last run", "")
    for each in row["versions"]:
        share = each["success_share"]
        is_registered = "registered" if each["fingerprint"] == row["fingerprint"] else ""
        told = "" if share is None else f"{share:.1%}"
        made.add_row(each["fingerprint"], f"{each['runs']:,}", told, output.clock_time(each["last_at"]), is_registered)
    return made


def _levels(row: dict[str, Any]) -> Table:
    made = output.table("action", "level", "code", ("missing for more", "fold"))
    for each in row["levels"]:
        action = "every other action" if each["action"] == "*" else each["action"]
        made.add_row(action, each["level"], each["fingerprint"][:8], "; ".join(each["missing"]))
    return made


def _breakers(row: dict[str, Any]) -> Table:
    made = output.table("dependency", "state", ("failures", "right"), ("for", "right"), ("reason", "fold"))
    for each in row["breakers"]:
        left = output.seconds(each["open_seconds"]) if each["open_seconds"] else ""
        reason = output.shorten(each["reason"] or "", 80)
        made.add_row(each["name"], output.state(each["state"]), f"{each['failures']:,}", left, reason)
    return made


def _word(row: dict[str, Any]) -> Text:
    return Text(row["health"]["word"], style=TONES[row["health"]["tone"]])


def _ended(row: dict[str, Any]) -> str:
    return f"{sum(row['ended_today'].values()):,}"


def _share(row: dict[str, Any]) -> str:
    share = row["success_share_today"]
    return "" if share is None else f"{share:.1%}"


def _at_once(row: dict[str, Any]) -> str | None:
    """The concurrency limits, as far as there are any."""
    limits = ((row["max_running"], "runs"), (row["max_running_per_key"], "runs of one concurrency key"))
    return ", ".join(f"{limit} {what}" for limit, what in limits if limit is not None) or None
