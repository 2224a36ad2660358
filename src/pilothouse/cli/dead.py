"""`dead`: list, redrive and dismiss dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import CycloptsError, Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.session import principal, run
from pilothouse.control import dead as verbs
from pilothouse.control.views import view

RunId = Annotated[str | None, Parameter(help="One run; or choose by filter.")]
Agent = Annotated[str | None, Parameter(help="Those of this agent.")]
Tenant = Annotated[str | None, Parameter(help="Those of this tenant.")]
ErrorType = Annotated[str | None, Parameter(help="Those that failed with an exception of this type.")]
Everything = Annotated[bool, Parameter(name="--all", negative="", help="All dead letters.")]
Reason = Annotated[str, Parameter(help="Why; it goes into the audit.")]


def list_dead(
    *,
    agent: Agent = None,
    tenant: Tenant = None,
    error_type: ErrorType = None,
    after: Annotated[str | None, Parameter(help="The last id of the page before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The dead letters, newest first."""
    wanted = verbs.DeadFilter(agent, tenant, error_type)
    rows = [view(row) for row in run(lambda db: verbs.list_dead(db, wanted, after=after, limit=limit))]
    if as_json:
        return output.print_json(rows)
    made = output.table("run", ("agent", "fold"), "failed", ("#", "right"), ("step", "fold"), ("error", "fold"))
    for row in rows:
        error = row["error"] or {}
        told = output.shorten(f"{error.get('type')}: {error.get('message')}", 90)
        when = output.clock_time(row["finished_at"])
        made.add_row(row["id"], row["agent"], when, str(row["attempt"]), error.get("step", ""), told)
    return output.print_table(made, empty="no dead letters", spare=("#", "failed", "step"))


def redrive(
    run_id: RunId = None,
    *,
    agent: Agent = None,
    tenant: Tenant = None,
    error_type: ErrorType = None,
    everything: Everything = False,
    start_from: Annotated[
        Literal["failure", "start"],
        Parameter(name="--from", help="failure: finished steps keep their checkpoints; start: all are executed again."),
    ] = "failure",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Queue dead letters again with fresh attempts, singly or by filter."""
    who, wanted = principal(), verbs.DeadFilter(agent, tenant, error_type)
    if _is_single(_Choice(run_id, wanted, everything)):
        assert run_id is not None
        run(lambda db: verbs.redrive_run(db, run_id, principal=who, start_from=start_from, reason=reason))
        return _print(1, "redriven", as_json=as_json)
    count = run(lambda db: verbs.redrive_many(db, wanted, principal=who, start_from=start_from, reason=reason))
    return _print(count, "redriven", as_json=as_json)


def dismiss(
    run_id: RunId = None,
    *,
    agent: Agent = None,
    tenant: Tenant = None,
    error_type: ErrorType = None,
    everything: Everything = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set dead letters aside, singly or by filter; the runs stay in the run log."""
    who, wanted = principal(), verbs.DeadFilter(agent, tenant, error_type)
    if _is_single(_Choice(run_id, wanted, everything)):
        assert run_id is not None
        run(lambda db: verbs.dismiss_run(db, run_id, principal=who, reason=reason))
        return _print(1, "dismissed", as_json=as_json)
    count = run(lambda db: verbs.dismiss_many(db, wanted, principal=who, reason=reason))
    return _print(count, "dismissed", as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Choice:
    run_id: str | None
    wanted: verbs.DeadFilter
    everything: bool


def _is_single(choice: _Choice) -> bool:
    """One run or a filter, and never everything by omission."""
    has_filter = choice.wanted != verbs.DeadFilter() or choice.everything
    if (choice.run_id is not None) == has_filter:
        raise CycloptsError(msg="name one run, or choose with --agent, --tenant, --error-type or --all.")
    return choice.run_id is not None


def _print(count: int, done: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({done: count})
    else:
        output.console().print(f"{count} {'run' if count == 1 else 'runs'} {done}")
