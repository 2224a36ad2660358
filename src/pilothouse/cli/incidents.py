"""`incident`: open, list, show, correct, close, case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.control import incidents as verbs
from pilothouse.control.incidents import Correction, IncidentFilter, Report
from pilothouse.control.runs import Request
from pilothouse.control.views import view
from pilothouse.domain.incidents import Severity
from pilothouse.errors import FieldError, InvalidInput

SHOWN = 50
"""A screen of effects; the rest is there for programs."""

IncidentId = Annotated[str, Parameter(help="The incident's id.")]


def open_incident(
    *,
    effect: Annotated[str, Parameter(help="The bad effect's id.")],
    reason: Annotated[str, Parameter(help="Why it is bad; it goes into the audit.")],
    severity: Annotated[
        Severity, Parameter(help="Critical ones count against the agent's autonomy.")
    ] = Severity.CRITICAL,
    hours: Annotated[int, Parameter(help="How far around it siblings by the same code are looked for.")] = verbs.HOURS,
    as_json: AsJson = False,
) -> None:
    """Report a bad action: finds its siblings and freezes its run as a regression case."""
    report = Report(effect, reason, severity, hours)
    found = run(lambda db: verbs.open_incident(db, report, principal=principal()))
    _print(found, as_json)


def list_incidents(
    *,
    state: Annotated[Literal["open", "closed"] | None, Parameter(help="Only those in this state.")] = None,
    severity: Annotated[Severity | None, Parameter(help="Only those of this severity.")] = None,
    agent: Annotated[str | None, Parameter(help="Only those of this agent.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only those of this tenant.")] = None,
    after: Annotated[str | None, Parameter(help="The last id of the page before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The latest incidents, newest first."""
    wanted = IncidentFilter(state, severity, agent, tenant)
    rows = [view(row) for row in run(lambda db: verbs.list_incidents(db, wanted, after=after, limit=limit))]
    if as_json:
        return output.print_json(rows)
    made = output.table(
        "incident",
        "state",
        "severity",
        "opened",
        ("agent", "fold"),
        ("tool", "fold"),
        ("siblings", "right"),
        ("corrected", "right"),
        ("reason", "fold"),
    )
    for row in rows:
        made.add_row(
            row["id"],
            output.state(row["state"]),
            row["severity"],
            output.clock_time(row["opened_at"]),
            row["agent"],
            row["tool"],
            str(row["siblings"]),
            str(row["corrections"]),
            output.shorten(row["reason"], 60),
        )
    return output.print_table(made, empty="no incidents", spare=("opened", "corrected", "tool"))


def show(incident_id: IncidentId, *, as_json: AsJson = False) -> None:
    """One incident: the effect, its siblings with what became of them, and the corrections."""
    _print(run(lambda db: verbs.show_incident(db, incident_id)), as_json)


def correct(
    incident_id: IncidentId,
    *,
    effect: Annotated[str, Parameter(help="The effect of the incident that is corrected.")],
    note: Annotated[str, Parameter(help="What was done; it goes into the audit.")],
    by_run: Annotated[
        tuple[str, str] | None, Parameter(name="--run", help="AGENT INPUT: a run that does it, submitted with this.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record what was done about an effect of an incident, linked to that effect's audit record."""
    who = principal()
    request = None if by_run is None else Request(by_run[0], _parse(by_run[1]), principal=who)
    correction = Correction(effect, note, request)
    _print(run(lambda db: verbs.correct(db, incident_id, correction, principal=who)), as_json)


def close(
    incident_id: IncidentId,
    *,
    note: Annotated[str, Parameter(help="What was learned; it goes into the audit.")],
    as_json: AsJson = False,
) -> None:
    """Close an incident whose effects are corrected."""
    _print(run(lambda db: verbs.close_incident(db, incident_id, note, principal=principal())), as_json)


def case(
    incident_id: IncidentId,
    *,
    to: Annotated[Path | None, Parameter(name="--output", help="The file to write; printed unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """The incident's run, up to its bad action, as a regression case in JSON."""
    found = run(lambda db: verbs.case_of(db, incident_id))
    if to is None:
        return output.print_json(found)
    to.write_text(payloads.encode(found) + "\n", encoding="utf-8")
    if as_json:
        return output.print_json({"incident": incident_id, "file": str(to)})
    return output.console().print(f"the case is in {to}", soft_wrap=True)


def _parse(text: str) -> Any:
    try:
        return payloads.decode(text)
    except ValueError as error:
        raise InvalidInput(f"the input of --run is not JSON: {error}", [FieldError("run", str(error))]) from error


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.print_json(found)
    out = output.console()
    out.print(
        output.facts(
            [
                ("incident", found["id"]),
                ("state", output.state(found["state"])),
                ("severity", found["severity"]),
                ("agent", found["agent"]),
                ("code", found["fingerprint"]),
                ("run", found["run_id"]),
                ("opened", f"{output.clock_time(found['opened_at'])} by {found['opened_by']}"),
                ("reason", found["reason"]),
                ("closed", found["closed_by"] and f"{output.clock_time(found['closed_at'])} by {found['closed_by']}"),
                ("note", found["note"]),
            ]
        )
    )
    out.print(_effects(found, found["effects"][:SHOWN]))
    if len(found["effects"]) > SHOWN:
        rest = f"{len(found['effects']) - SHOWN:,} more siblings: `pilothouse incident show {found['id']} --json`"
        out.print(rest, style="dim", soft_wrap=True)
    if len(found["effects"]) > verbs.CANDIDATES:
        most = f"an incident keeps the nearest {verbs.CANDIDATES:,} siblings; there may be more"
        out.print(most, style="yellow", soft_wrap=True)
    return None


def _effects(found: dict[str, Any], shown: list[dict[str, Any]]) -> Any:
    corrected = {row["effect_id"]: row for row in found["corrections"]}
    made = output.table(
        "effect", ("alike in", "fold"), "state", "run", "at", ("arguments", "fold"), ("corrected", "fold")
    )
    for row in shown:
        done = corrected.get(row["effect_id"])
        told = "" if done is None else f"{done['note']}" + (f", by run {done['by_run']}" if done["by_run"] else "")
        made.add_row(
            row["effect_id"],
            row["kinship"],
            output.state(row["state_now"] or row["state"]),
            row["run_id"],
            output.clock_time(row["intended_at"]),
            output.shorten(row["arguments"] if row["arguments"] is not None else "", 60),
            told,
        )
    return made
