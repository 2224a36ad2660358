"""`runs`: list, show, watch, why, cancel, redrive, signal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.bulk import Chosen, bulk
from pilothouse.cli.effects import instant
from pilothouse.cli.output import AsJson, Limit
from pilothouse.cli.run_view import by_line, show_timeline
from pilothouse.cli.session import principal, run
from pilothouse.cli.step_view import show_step, step_of
from pilothouse.cli.watching import follow
from pilothouse.clock import isoformat
from pilothouse.control import cancels, dead, run_lists, signals
from pilothouse.control.bulk import Order
from pilothouse.control.cancels import Lineage
from pilothouse.control.run_lists import Filter
from pilothouse.control.timeline import timeline
from pilothouse.control.timeline import why as ask_why
from pilothouse.control.views import lineage_view, run_view
from pilothouse.control.waterfall import waterfall_of
from pilothouse.domain.runs import RunState
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database

RunId = Annotated[str, Parameter(help="The run's id.")]
ManyId = Annotated[str | None, Parameter(help="One run; or choose by filter.")]
Reason = Annotated[str, Parameter(help="Why; it goes into the audit.")]


def list_runs(
    *,
    state: Annotated[RunState | None, Parameter(help="Only runs in this state.")] = None,
    agent: Annotated[str | None, Parameter(help="Only runs of this agent.")] = None,
    lane: Annotated[str | None, Parameter(help="Only runs of this lane.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only runs of this tenant.")] = None,
    parent: Annotated[str | None, Parameter(help="Only children of this run.")] = None,
    version: Annotated[str | None, Parameter(help="Only runs of this version; the beginning of a fingerprint.")] = None,
    text: Annotated[str | None, Parameter(help="Only runs with this text in their input or error.")] = None,
    since: Annotated[str | None, Parameter(help="Only runs submitted from this instant on, ISO 8601.")] = None,
    until: Annotated[str | None, Parameter(help="Only runs submitted before this instant, ISO 8601.")] = None,
    after: Annotated[str | None, Parameter(help="The last id of the page before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The latest runs, newest first."""
    wanted = Filter(state, agent, lane, tenant, parent, instant(since), instant(until), version, text)
    found = run(lambda db: run_lists.list_runs(db, wanted, after=after, limit=limit))
    rows = [run_view(row) for row in found.rows]
    if as_json:
        return output.print_json(rows)
    made = output.table("run", ("agent", "fold"), "state", ("#", "right"), "submitted", ("took", "right"))
    for row in rows:
        took = output.duration(row["started_at"], row["finished_at"])
        when = output.clock_time(row["created_at"])
        state_text = output.state(row["state"])
        made.add_row(row["id"], row["agent"], state_text, str(row["attempt"]), when, took)
    output.print_table(made, empty=_nothing(wanted), spare=("took", "submitted"))
    if found.searched_back_to is not None:
        told = f"searched back to {output.clock_time(isoformat(found.searched_back_to))}; further: --after {found.next}"
        output.console().print(told, style="dim", soft_wrap=True)
    return None


def _nothing(wanted: Filter) -> str:
    is_any = wanted == Filter()
    return "no runs; submit one with `pilothouse submit AGENT INPUT`" if is_any else "no runs fit"


def show(
    run_id: RunId,
    *,
    step: Annotated[str | None, Parameter(help="Only this step, whole: prompt and answer, arguments, result.")] = None,
    full: Annotated[bool, Parameter(negative="", help="Whole texts and all spans, however long.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything that happened to a run, on a line of time: where its time and money went, and what to do next."""
    if step is not None:
        asked = step_of(run(lambda db: timeline(db, run_id)), step)
        return output.print_json(asked) if as_json else show_step(output.console(), asked)
    found = run(lambda db: _all_of(db, run_id))
    if as_json:
        return output.print_json(found)
    return show_timeline(output.console(), found, full=full)


async def _all_of(db: Database, run_id: str) -> dict[str, Any]:
    more = {"why": await ask_why(db, run_id), "waterfall": await waterfall_of(db, run_id)}
    return await timeline(db, run_id) | more


def why(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Why a run is where it is, and what to do."""
    told = run(lambda db: ask_why(db, run_id))
    if as_json:
        return output.print_json(told)
    out = output.console()
    out.print(output.state(told["state"]), end=": ")
    out.print("; ".join(told["reasons"]), soft_wrap=True)
    return out.print(f"next: {by_line(told['next'])}", style="dim", soft_wrap=True)


def watch(run_id: RunId, *, as_json: AsJson = False) -> int:
    """Follow a run until it has ended; exits with 0 if it succeeded, else with 1."""
    return run(lambda db: follow(db, run_id, as_json=as_json))


def cancel(
    run_id: ManyId = None,
    *,
    chosen: Chosen | None = None,
    lineage: Annotated[bool, Parameter(negative="", help="Its root and all that came of it.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Only show what would be cancelled.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Cancel a run, or the runs of a filter, and what they started. One that runs shows `cancelling` until its worker
    has proved it.
    """
    wanted = chosen or Chosen()
    if wanted.expect(run_id):
        return bulk(Order("cancel", principal(), reason=reason), wanted, dry_run=dry_run, as_json=as_json)
    assert run_id is not None
    if lineage or dry_run:
        found = run(lambda db: _cancel_lineage(db, run_id, lineage=lineage, dry_run=dry_run, reason=reason))
        return _print_lineage(lineage_view(found, dry_run=dry_run), as_json=as_json)
    row = run_view(run(lambda db: cancels.cancel_run(db, run_id, principal=principal(), reason=reason)))
    return _print_run(row, f"run {run_id} is {row['state']}", as_json=as_json)


async def _cancel_lineage(db: Database, run_id: str, *, lineage: bool, dry_run: bool, reason: str) -> Lineage:
    if not lineage:
        return await cancels.plan_cancel(db, run_id)
    return await cancels.cancel_whole_lineage(db, run_id, principal=principal(), reason=reason, dry_run=dry_run)


def _print_lineage(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        return output.print_json(found)
    made = output.table("run", ("agent", "fold"), "state", "started by")
    for row in found["runs"]:
        made.add_row(row["id"], row["agent"], output.state(row["state"]), row["parent_id"] or "")
    output.print_table(made, empty="nothing is left to cancel", spare=("started by",))
    held = len(found["reservations"])
    if held:
        dollars = sum(row["microusd"] for row in found["reservations"]) / 1_000_000
        told = f"they hold {held} reservations of {dollars:.6f} dollars, which are settled as the calls end"
        output.console().print(told, soft_wrap=True)
    if found["dry_run"]:
        output.console().print("nothing was cancelled: this was a dry run", style="dim")
    return None


def redrive(
    run_id: ManyId = None,
    *,
    chosen: Chosen | None = None,
    start_from: Annotated[
        Literal["failure", "start"],
        Parameter(name="--from", help="failure: finished steps keep their checkpoints; start: all are executed again."),
    ] = "failure",
    step: Annotated[
        str | None, Parameter(help="Of one run: what had not finished when this step began is executed again.")
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only show what would be redriven.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Queue a failed run again with fresh attempts, or the dead letters of a filter."""
    wanted = chosen or Chosen()
    if wanted.expect(run_id):
        if step is not None:
            raise CycloptsError(msg="--step is of one run; name the run.")
        order = Order("redrive", principal(), reason=reason, start_from=start_from)
        return bulk(order, wanted, dry_run=dry_run, as_json=as_json)
    assert run_id is not None
    who = principal()
    row = run_view(
        run(lambda db: dead.redrive_run(db, run_id, principal=who, start_from=start_from, step=step, reason=reason))
    )
    return _print_run(row, f"run {run_id} is queued again", as_json=as_json)


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
