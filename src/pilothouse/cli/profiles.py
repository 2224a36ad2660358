"""`profile`: where time and money go, in one run or over a period."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.call_view import usd
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run as on_database
from pilothouse.cli.waterfall_view import where
from pilothouse.clock import SystemClock, from_datetime
from pilothouse.control import profiles as verbs
from pilothouse.control.profiles import MOST_RUNS, Period
from pilothouse.domain.profiles import GROUPS, By
from pilothouse.domain.words import counted
from pilothouse.errors import FieldError, InvalidInput

LINES_SHOWN = 10
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Since = Annotated[
    str | None, Parameter(help="Runs submitted since then: 30m, 24h, 7d, or an instant. A day unless given.")
]
Until = Annotated[str | None, Parameter(help="Runs submitted before then; now unless given.")]
Form = Annotated[bool, Parameter(name="--csv", negative="", help="Print CSV; needs --by.")]


def run(run_id: Annotated[str, Parameter(help="The run's id.")], *, as_json: AsJson = False) -> None:
    """Where the time and money of one run went."""
    found = on_database(lambda db: verbs.of_run(db, run_id))
    if as_json:
        return output.print_json(found)
    out = output.console()
    title = Text.assemble(
        ("run ", "dim"), (found["run"], "bold"), f"  {found['agent']}  ", output.state(found["state"])
    )
    out.print(title, soft_wrap=True)
    return _print(found, ("step", "model", "tool", "wait"), None)


def report(
    *,
    since: Since = None,
    until: Until = None,
    agent: Annotated[str | None, Parameter(help="Only runs of this agent.")] = None,
    by: Annotated[By | None, Parameter(help="One group, whole; the first lines of each unless given.")] = None,
    most: Annotated[
        int, Parameter(name="--runs", help="Read at most so many runs, the newest.", validator=output.AT_LEAST_ONE)
    ] = MOST_RUNS,
    as_csv: Form = False,
    as_json: AsJson = False,
) -> None:
    """Where time and money went in the runs of a period: by agent, step, model, tool and wait."""
    if as_csv and by is None:
        raise InvalidInput("--csv needs --by: a file has one kind of line", [FieldError("by", "is missing")])
    period = Period(_instant("--since", since), _instant("--until", until), agent)
    found = on_database(lambda db: verbs.report(db, period, by=by, most=most))
    if as_json:
        return output.print_json(found)
    if as_csv and by is not None:
        return _print_csv(found[f"by_{by}"])
    out = output.console()
    runs = counted(found["runs"], "run")
    covered = f"submitted from {output.clock_time(found['since'])} until {output.clock_time(found['until'])} UTC"
    out.print(Text.assemble((runs, "bold"), f" {covered}"), soft_wrap=True)
    if found["is_cut"]:
        out.print(f"older ones were left out; read more with --runs {most * 10}", style="yellow", soft_wrap=True)
    if not found["runs"]:
        return out.print("no run was submitted in that time; see further back with --since 7d", style="dim")
    return _print(found, GROUPS if by is None else (by,), LINES_SHOWN if by is None else None)


def _print(found: Mapping[str, Any], groups: Sequence[By], most: int | None) -> None:
    out = output.console()
    total = {"total_us": found["us"], "where_time_went": found["where_time_went"]}
    took = output.seconds(found["us"] / 1_000_000)
    out.print(f"{took} in all, {usd(found['microusd'])}, {found['tokens']:,} tokens\n", soft_wrap=True)
    out.print(where(total, out.width))
    for by in groups:
        rows = found[f"by_{by}"]
        if rows:
            out.print()
            _print_group(by, rows[:most], found["us"], is_of_many="since" in found)
        if most is not None and len(rows) > most:
            out.print(f"{len(rows) - most:,} more with --by {by}", style="dim")


def _print_group(by: By, rows: Sequence[Mapping[str, Any]], total_us: int, *, is_of_many: bool) -> None:
    made = output.table(
        (by, "fold"), ("count", "right"), ("failed", "right"), ("time", "right"), ("share", "right"), ("mean", "right"),
        ("longest", "right"), ("tokens", "right"), ("cost", "right"), *(["longest run"] if is_of_many else []),
    )  # fmt: skip
    for row in rows:
        times = [output.seconds(row[name] / 1_000_000) for name in ("us", "mean_us", "longest_us")]
        failed = Text(f"{row['failed']:,}" if row["failed"] else "", style="red")
        share = f"{row['us'] / total_us:.0%}" if total_us else ""
        tokens, cost = f"{row['tokens']:,}" if row["tokens"] else "", usd(row["microusd"]) if row["microusd"] else ""
        cells: list[str | Text] = [f"{row['count']:,}", failed, times[0], share, times[1], times[2], tokens, cost]
        made.add_row(row[by], *cells, *([row["longest_run"]] if is_of_many else []))
    output.print_table(made, empty="", spare=("longest run", "tokens", "longest", "share"))


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for place, row in enumerate(rows):
        if place == 0:
            writer.writerow(row)
        writer.writerow(row.values())


def _instant(option: str, text: str | None) -> int | None:
    """An instant as people give it: `24h` ago, or ISO 8601 (UTC unless it says otherwise)."""
    if text is None:
        return None
    try:
        if text[-1:] in UNITS and text[:-1].replace(".", "", 1).isdigit():
            ago = timedelta(**{UNITS[text[-1]]: float(text[:-1])})
            return SystemClock().now_us() - int(ago.total_seconds() * 1_000_000)
        moment = datetime.fromisoformat(text)
        return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is neither a time back from now, such as 30m, 24h or 7d, nor an instant in ISO 8601"
        raise InvalidInput(f"{option}: {message}", [FieldError(option.lstrip("-"), message)]) from error
