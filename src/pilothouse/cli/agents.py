"""`agents`: list and show."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run
from pilothouse.clock import isoformat
from pilothouse.control import agents as verbs


def list_agents(*, as_json: AsJson = False) -> None:
    """All agents that workers have registered."""
    rows = [verbs.public(row) for row in run(verbs.list_agents)]
    if as_json:
        return output.print_json(rows)
    made = output.table("agent", "app", "lane", ("attempts", "right"), ("time-out", "right"), ("description", "fold"))
    for row in rows:
        timeout = output.seconds(row["timeout_seconds"])
        about = output.shorten(row["description"].partition("\n")[0])
        made.add_row(row["name"], row["app"], row["lane"], str(row["max_attempts"]), timeout, about)
    return output.print_table(
        made, empty="no agents; a worker registers its own when it starts", spare=("app", "attempts")
    )


def show(name: Annotated[str, Parameter(help="The agent's name.")], *, as_json: AsJson = False) -> None:
    """One agent with its defaults and schemas."""
    row = verbs.public(run(lambda db: verbs.show_agent(db, name)))
    if as_json:
        return output.print_json(row)
    out = output.console()
    out.print(f"[bold]{row['name']}[/bold]  {row['description']}")
    run_timeout = row["run_timeout_seconds"]
    pairs = (
        ("app", row["app"]),
        ("lane", f"{row['lane']}, priority {row['priority']}"),
        ("attempts", f"{row['max_attempts']} that fail, {row['max_losses']} that are lost"),
        ("time-out", f"{output.seconds(row['timeout_seconds'])} for an attempt"),
        ("deadline", f"{output.seconds(run_timeout)} for the run" if run_timeout else None),
        ("at once", _at_once(row)),
        ("registered", f"{output.clock_time(isoformat(row['registered_at']))} by {row['registered_by']}"),
    )
    out.print(output.facts(pairs))
    for part in ("input", "output"):
        out.print(f"\n[bold]{part}[/bold]")
        out.print_json(payloads.encode(row[f"{part}_schema"]))
    return None


def _at_once(row: dict[str, Any]) -> str | None:
    """The concurrency limits, as far as there are any."""
    limits = ((row["max_running"], "runs"), (row["max_running_per_key"], "runs of one concurrency key"))
    return ", ".join(f"{limit} {what}" for limit, what in limits if limit is not None) or None
