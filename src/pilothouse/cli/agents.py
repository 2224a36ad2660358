"""`agents`: list, show, suspend, resume."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run
from pilothouse.cli.switches import Reason, reset_and_tell, trip_and_tell
from pilothouse.clock import isoformat
from pilothouse.control import agents as verbs
from pilothouse.control import breakers
from pilothouse.control.switches import TripOrder

Name = Annotated[str, Parameter(help="The agent's name.")]


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


def show(name: Name, *, as_json: AsJson = False) -> None:
    """One agent with its defaults and schemas."""
    row = verbs.public(run(lambda db: verbs.show_agent(db, name)))
    if as_json:
        return output.print_json(row)
    out = output.console()
    out.print(Text.assemble((row["name"], "bold"), f"  {row['description']}"))
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
    _show_breakers(out, [breakers.public(each) for each in run(breakers.list_breakers)])
    for part in ("input", "output"):
        out.print(f"\n{part}", style="bold")
        out.print_json(payloads.encode(row[f"{part}_schema"]))
    return None


def suspend(name: Name, *, reason: Reason = "", as_json: AsJson = False) -> int:
    """Trip switch agent:NAME: its runs stay queued, and those that run stop before their next effect."""
    return trip_and_tell(TripOrder(f"agent:{name}", reason=reason), f"agent {name} is suspended", None, as_json=as_json)


def resume(name: Name, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Reset switch agent:NAME, so that a suspended agent goes on."""
    reset_and_tell(f"agent:{name}", f"agent {name} goes on", reason=reason, as_json=as_json)


def _show_breakers(out: Console, found: list[dict[str, Any]]) -> None:
    """The dependencies that no agent can use now."""
    resting = [each for each in found if each["state"] != "closed"]
    if not resting:
        return
    out.print("\ncircuit breakers", style="bold")
    made = output.table("dependency", "state", ("for", "right"), ("reason", "fold"))
    for each in resting:
        made.add_row(each["name"], each["state"], f"{each['open_seconds']:.0f} s", output.shorten(each["reason"], 80))
    out.print(made)


def _at_once(row: dict[str, Any]) -> str | None:
    """The concurrency limits, as far as there are any."""
    limits = ((row["max_running"], "runs"), (row["max_running_per_key"], "runs of one concurrency key"))
    return ", ".join(f"{limit} {what}" for limit, what in limits if limit is not None) or None
