"""`agents`: list, show, suspend, resume."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.agent_view import SPARE, agents_table, show_agent
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run
from pilothouse.cli.switches import Reason, reset_and_tell, trip_and_tell
from pilothouse.config import load_settings
from pilothouse.control import agent_health, agent_pages
from pilothouse.control import agents as verbs
from pilothouse.control.switches import TripOrder
from pilothouse.control.views import view

Name = Annotated[str, Parameter(help="The agent's name.")]


def list_agents(*, as_json: AsJson = False) -> None:
    """All agents that workers have registered, and how each does."""
    calendar = load_settings().calendar
    found = run(lambda db: agent_pages.look(db, calendar))
    rows = [view(verbs.public(each.agent)) | agent_health.figures_of(each) for each in found]
    if as_json:
        return output.print_json(rows)
    return output.print_table(
        agents_table(rows), empty="no agents; a worker registers its own when it starts", spare=SPARE
    )


def show(name: Name, *, as_json: AsJson = False) -> None:
    """One agent: how it does, what it may do, its defaults and schemas."""
    settings = load_settings()
    seen = run(
        lambda db: agent_pages.look_at(
            db,
            name,
            settings.calendar,
            default=settings.new_agent_level,
            threshold=settings.confidence_auto_threshold,
        )
    )
    row = view(verbs.public(seen.standing.agent)) | agent_health.all_figures_of(seen, settings.degrade_at)
    if as_json:
        return output.print_json(row)
    return show_agent(output.console(), row)


def suspend(name: Name, *, reason: Reason = "", as_json: AsJson = False) -> int:
    """Trip switch agent:NAME: its runs stay queued, and those that run stop before their next effect."""
    return trip_and_tell(TripOrder(f"agent:{name}", reason=reason), f"agent {name} is suspended", None, as_json=as_json)


def resume(name: Name, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Reset switch agent:NAME, so that a suspended agent goes on."""
    reset_and_tell(f"agent:{name}", f"agent {name} goes on", reason=reason, as_json=as_json)
