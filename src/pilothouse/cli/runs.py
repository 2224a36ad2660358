"""`runs`: list, show, watch, why, cancel, redrive, signal."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pilothouse import payloads
from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.run_view import follow_line, show_timeline
from pilothouse.cli.session import principal, run
from pilothouse.control import dead, signals
from pilothouse.control import runs as verbs
from pilothouse.control.timeline import timeline
from pilothouse.control.timeline import why as ask_why
from pilothouse.control.views import run_view
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database

LOOK_SECONDS = 0.2

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
    limit: Annotated[int, Parameter(help="How many.")] = 20,
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
    return output.print_table(made, empty="no runs; submit one with `pilothouse submit AGENT INPUT`")


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


async def follow(db: Database, run_id: str, *, as_json: bool) -> int:
    """Prints a line per record of the run until it has ended, then its result."""
    hinted = asyncio.Event()
    loop = asyncio.get_running_loop()
    unlisten = db.listen(lambda _topic: _set(loop, hinted))
    printed = 0
    try:
        while True:
            found = await timeline(db, run_id)
            for record in found["audit"][printed:]:
                _print_record(record, as_json=as_json)
            printed = len(found["audit"])
            if found["run"]["state"] in TERMINAL:
                return _print_end(found["run"], as_json=as_json)
            await _wait(hinted)
    finally:
        unlisten()


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


async def _wait(hinted: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await hinted.wait()
    except TimeoutError:
        return
    hinted.clear()


def _print_record(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(record)
    else:
        output.console().print(follow_line(record), soft_wrap=True)


def _print_end(found: dict[str, Any], *, as_json: bool) -> int:
    is_good = found["state"] == RunState.SUCCEEDED
    if as_json:
        output.print_json(found)
    elif is_good:
        output.console().print_json(payloads.encode(found["output"]))
    else:
        error = found["error"] or {}
        told = f"{error.get('type', found['state'])}: {error.get('message', '')}"
        output.errors().print(f"{told}\nsee `pilothouse runs show {found['id']}`", style="red", soft_wrap=True)
    return 0 if is_good else 1


def cancel(run_id: RunId, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Cancel a run and what it started. One that runs shows `cancelling` until its worker has proved it."""
    row = run_view(run(lambda db: verbs.cancel_run(db, run_id, principal=principal(), reason=reason)))
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
