"""`stability`: start, status, report, stop."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.config import load_settings
from pilothouse.control import stability as verbs
from pilothouse.control.stability import PlanTerms
from pilothouse.control.views import view
from pilothouse.domain.autonomy import Level
from pilothouse.domain.stability import Verdict

Name = Annotated[str, Parameter(help="The agent's name.")]
STYLES = {Verdict.MET: "green", Verdict.MISSED: "bold red", Verdict.NOT_MEASURED: "yellow"}


def start(
    name: Name,
    *,
    days_scale: Annotated[float, Parameter(help="How long a day of the plan lasts, in days.")] = 1.0,
    target_level: Annotated[Level, Parameter(help="The level of the last day.")] = Level.AUTONOMOUS,
    actions_per_day: Annotated[int | None, Parameter(help="The cap of the last day; else MAX_ACTIONS_PER_DAY.")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin the seven-day plan of an agent's registered version."""
    target = load_settings().max_actions_per_day if actions_per_day is None else actions_per_day
    terms = PlanTerms(name, target, days_scale, target_level)
    _show(run(lambda db: verbs.start_plan(db, terms, principal=principal())), as_json)


def list_plans(*, as_json: AsJson = False) -> None:
    """Every plan, those under way first: its stage, and how many of its criteria are met so far."""
    rows = [view(row) for row in run(verbs.list_plans)]
    if as_json:
        return output.print_json(rows)
    made = output.table("agent", "state", "stage", ("", "fold"), "level", ("cap", "right"), "until", "criteria")
    for row in rows:
        until = output.clock_time(row["stage_ends_at"] or row["ended_at"])
        stage = f"{row['stage']} of {row['stages']}"
        cap = str(row["actions_per_day"])
        made.add_row(row["agent"], row["state"], stage, row["stage_name"], row["level"], cap, until, _counts(row))
    return output.print_table(
        made, empty="no stability plans; `pilothouse stability start AGENT` begins one", spare=("", "cap")
    )


def _counts(row: dict[str, Any]) -> str:
    verdicts = [finding["verdict"] for finding in row["findings"]]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts)


def report(name: Name, *, as_json: AsJson = False) -> None:
    """The plan of an agent that is under way, or its latest: every criterion and its figures."""
    _show(run(lambda db: verbs.show_plan(db, name)), as_json)


def stop(
    name: Name,
    *,
    reason: Annotated[str | None, Parameter(help="Why, for the audit.")] = None,
    as_json: AsJson = False,
) -> None:
    """End a plan without a verdict; levels and cap become what they were before."""
    _show(run(lambda db: verbs.stop_plan(db, name, reason=reason, principal=principal())), as_json)


def _show(row: dict[str, Any], as_json: bool) -> None:
    plan = view(row)
    if as_json:
        output.print_json(plan)
        return
    out = output.console()
    out.print(Text.assemble((plan["agent"], "bold"), f"  stability plan, {plan['state']}"))
    pairs = (
        ("version", plan["fingerprint"]),
        ("stage", f"{plan['stage']} of {plan['stages']} (days {plan['days']}): {plan['stage_name']}"),
        ("level", plan["level"]),
        ("cap", f"{plan['actions_per_day']} actions per day, target {plan['target_actions_per_day']}"),
        ("a day lasts", output.seconds(plan["day_seconds"])),
        ("started", f"{output.clock_time(plan['started_at'])} by {plan['started_by']}"),
        ("stage ends", output.clock_time(plan["stage_ends_at"])),
        ("ended", output.clock_time(plan["ended_at"])),
        ("because", plan["reason"]),
    )
    out.print(output.facts(pairs))
    made = output.table("criterion", "verdict", ("figures", "fold"))
    for finding in plan["findings"]:
        verdict = Text(finding["verdict"], style=STYLES[Verdict(finding["verdict"])])
        made.add_row(finding["criterion"], verdict, finding["figures"])
    out.print(made)
