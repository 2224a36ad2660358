"""`runs`: list, show, watch, why, cancel, redrive, signal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.run_view import show_timeline
from pilothouse.cli.session import principal, run
from pilothouse.cli.watching import follow
from pilothouse.control import cancels, dead, signals
from pilothouse.control import runs as verbs
from pilothouse.control.timeline import timeline
from pilothouse.control.timeline import why as ask_why
from pilothouse.control.views import run_view
from pilothouse.domain.runs import RunState
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database

RunId = Annotated[str, Parameter(help="The run's id.")]
Reason = Annotated[str, Parameter(help="Why; it goes into the audit.")]


def list_runs(
    *,
    state: Annotated[RunState | None, Parameter(help="Only runs in this state.")] = None,
    agent: Annotated[str | None, Parameter(help="Only runs of this agent.")] = None,
    lane: Annotated[str | None, Parameter(help="Only runs of this lane.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only runs of this tenant.")] = None,
    parent: Annotated[str | None, Parameter(help="Only children of this run.")] = None,
    after: Annotated[str | None, Parameter(help="The last id of the page before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The latest runs, newest first."""
    wanted = verbs.Filter(state=state, agent=agent, lane=lane, tenant=tenant, parent_id=parent)
    rows = [run_view(row) for row in run(lambda db: verbs.list_runs(db, wanted, after=after, limit=limit))]
    if as_json:
        return output.print_json(rows)
    made = output.table("run", ("agent", "fold"), "state", ("#", "right"), "submitted", ("took", "right"))
    for row in rows:
        took = output.duration(row["started_at"], row["finished_at"])
        when = output.clock_time(row["created_at"])
        state_text = output.state(row["state"])
        made.add_row(row["id"], row["agent"], state_text, str(row["attempt"]), when, took)
    return output.print_table(
        made, empty="no runs; submit one with `pilothouse submit AGENT INPUT`", spare=("took", "submitted")
    )


def show(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Everything that happened to a run: attempts, steps, waits, logs, children, error, and what to do next."""
    found = run(lambda db: _timeline_and_why(db, run_id))
    if as_json:
        return output.print_json(found)
    return show_timeline(output.console(), found)


async def _timeline_and_why(db: Database, run_id: str) -> dict[str, Any]:
    return await timeline(db, run_id) | {"why": await ask_why(db, run_id)}


def why(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Why a run is where it is, and what to do."""
    told = run(lambda db: ask_why(db, run_id))
    if as_json:
        return output.print_json(told)
    out = output.console()
    out.print(output.state(told["state"]), end=": ")
    out.print("; ".join(told["reasons"]), soft_wrap=True)
    return out.print(f"next: {told['next']}", style="dim", soft_wrap=True)


def watch(run_id: RunId, *, as_json: AsJson = False) -> int:
    """Follow a run until it has ended; exits with 0 if it succeeded, else with 1."""
    return run(lambda db: follow(db, run_id, as_json=as_json))


def cancel(run_id: RunId, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Cancel a run and what it started. One that runs shows `cancelling` until its worker has proved it."""
    row = run_view(run(lambda db: cancels.cancel_run(db, run_id, principal=principal(), reason=reason)))
    _print_run(row, f"run {run_id} is {row['state']}", as_json=as_json)


def redrive(
    run_id: RunId,
    *,
    start_from: Annotated[
        Literal["failure", "start"],
        Parameter(name="--from", help="failure: finished steps keep their checkpoints; start: all are executed again."),
    ] = "failure",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Queue a failed run again with fresh attempts."""
    row = run_view(
        run(lambda db: dead.redrive_run(db, run_id, principal=principal(), start_from=start_from, reason=reason))
    )
    _print_run(row, f"run {run_id} is queued again", as_json=as_json)


def signal(
    run_id: RunId,
    name: Annotated[str, Parameter(help="The name that the run waits for.")],
    payload: Annotated[str, Parameter(help="JSON.", allow_leading_hyphen=True)] = "null",
    *,
    as_json: AsJson = False,
) -> None:
    """Send a signal to a run. The first of a name wins; it is kept if the run does not wait for it yet."""
    try:
        value = payloads.decode(payload)
    except ValueError as error:
        raise InvalidInput(f"the payload is not JSON: {error}", [FieldError("payload", str(error))]) from error
    is_first = run(lambda db: signals.send_signal(db, run_id, name, value, principal=principal()))
    if as_json:
        output.print_json({"run": run_id, "name": name, "first": is_first})
    elif is_first:
        output.console().print(f"signal {name!r} was sent to run {run_id}", soft_wrap=True)
    else:
        output.console().print(f"run {run_id} had signal {name!r} already; the first one stands", soft_wrap=True)


def _print_run(row: dict[str, Any], told: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(row)
    else:
        output.console().print(told, soft_wrap=True)
