"""`switch`: list, trip, reset."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter, validators

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import principal, run
from pilothouse.clock import isoformat
from pilothouse.control import switches as verbs
from pilothouse.control.switches import Proof, TripOrder
from pilothouse.control.views import view
from pilothouse.domain.switches import SwitchMode
from pilothouse.store.database import Database, Row

SILENT_EXIT = 1

ScopeName = Annotated[
    str, Parameter(help="global, tenant:NAME, agent:NAME, version:FINGERPRINT, lane:NAME or tool:NAME.")
]
Mode = Annotated[
    SwitchMode,
    Parameter(
        help="hold: stop before the next effect, and go on after the reset. drain: let what runs finish. "
        "abort: also refuse submits, and give back what runs at once."
    ),
]
Reason = Annotated[str, Parameter(help="Why; it goes into the audit, and to everybody who asks.")]
Seconds = Annotated[float, Parameter(help="How long --verify waits, in seconds.", validator=validators.Number(gt=0))]


def list_switches(*, as_json: AsJson = False) -> None:
    """The tripped switches, the latest first, and whether every live worker acts by them."""
    rows, (live, disabled) = run(_rows_and_workers)
    shown = [view(row) for row in rows]
    if as_json:
        return output.print_json({"switches": shown, "live_workers": live, "disabled_workers": disabled})
    made = output.table("switch", "mode", "tripped", ("by", "fold"), ("reason", "fold"), ("workers", "fold"))
    for row in shown:
        silent = f"{len(row['silent'])} of {live} have not acknowledged" if row["silent"] else "all have acknowledged"
        at = output.clock_time(row["tripped_at"])
        made.add_row(
            row["scope"], row["mode"], at, row["tripped_by"], row["reason"], silent if live else "none is live"
        )
    output.print_table(made, empty="no switch is tripped", spare=("tripped", "by"))
    if disabled:
        told = f"{disabled} of {live} live workers were started with ENGINE_ENABLED=false and claim nothing"
        output.console().print(told, style="yellow", soft_wrap=True)
    return None


async def _rows_and_workers(db: Database) -> tuple[list[Row], tuple[int, int]]:
    return await verbs.list_switches(db), await verbs.count_live_workers(db)


def trip(
    scope: ScopeName,
    *,
    mode: Mode = SwitchMode.HOLD,
    reason: Reason = "",
    verify: Annotated[
        bool, Parameter(negative="", help="Wait until every live worker acts by it, and show what it has stopped.")
    ] = False,
    deadline: Seconds = 10.0,
    as_json: AsJson = False,
) -> int:
    """Stop everything of a scope, on all workers. With --verify exits with 1 if a live worker stays silent."""
    order = TripOrder(scope, mode, reason)
    return trip_and_tell(order, f"switch {scope} is tripped ({mode})", deadline if verify else None, as_json=as_json)


def trip_and_tell(order: TripOrder, told: str, deadline: float | None, *, as_json: bool) -> int:
    """Trips, waits up to `deadline` seconds for the proof unless it is None, and prints."""

    async def work(db: Database) -> tuple[Row, Proof | None]:
        row = await verbs.trip_switch(db, order, principal=principal())
        return row, None if deadline is None else await verbs.prove_stop(db, row, deadline_seconds=deadline)

    row, proof = run(work)
    if as_json:
        output.print_json(view(row) | ({} if proof is None else {"proof": _proof_view(proof)}))
    else:
        out = output.console()
        for line in [told, *([row["note"]] if row["note"] else []), *(_proof_lines(row, proof) if proof else [])]:
            out.print(line, soft_wrap=True)
    return SILENT_EXIT if proof is not None and proof.silent else 0


def reset(scope: ScopeName, *, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let what a switch has stopped go on."""
    reset_and_tell(scope, f"switch {scope} is reset", reason=reason, as_json=as_json)


def reset_and_tell(scope: str, told: str, *, reason: str, as_json: bool) -> None:
    row = run(lambda db: verbs.reset_switch(db, scope, principal=principal(), reason=reason))
    if as_json:
        return output.print_json(view(row))
    released = f"; {row['released']} runs that waited for it go on" if row["released"] else ""
    return output.console().print(told + released, soft_wrap=True)


def _proof_view(proof: Proof) -> dict[str, Any]:
    return {
        "proved": not proof.silent,
        "seconds": proof.seconds,
        "silent": [view(row) for row in proof.silent],
        "last_effect_before": view(proof.before) if proof.before else None,
        "first_effect_after": view(proof.after) if proof.after else None,
    }


def _proof_lines(row: Row, proof: Proof) -> list[str]:
    if proof.silent:
        told = ", ".join(f"{each['id']} ({each['host']}, pid {each['pid']})" for each in proof.silent)
        first = (
            f"NOT PROVED: after {output.seconds(proof.seconds)} {len(proof.silent)} live workers stay silent: {told}"
        )
    else:
        first = f"every live worker acts by it since {output.seconds(proof.seconds)} after the trip"
    before = (
        f"the last effect before it: {_effect(proof.before, row)}" if proof.before else "no effect in the hour before"
    )
    after = f"the first effect after it: {_effect(proof.after, row)}" if proof.after else "no effect started after it"
    return [first, before, after]


def _effect(found: Row, switch: Row) -> str:
    apart = (found["started_at"] - switch["tripped_at"]) / 1_000_000
    side = "after" if apart > 0 else "before"
    what = f"{found['what']} {found['name']} of run {found['run_id']} ({found['key']})"
    return f"{what} at {isoformat(found['started_at'])}, {output.seconds(abs(apart))} {side}"
