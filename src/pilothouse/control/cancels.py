"""Cancels: a run and everything it started, at once where it is idle, through its worker where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse import payloads
from pilothouse.control import asking, audit, counters, runs, waits, webhooks
from pilothouse.control.runs import WAKE_CANCEL
from pilothouse.domain.runs import RunState
from pilothouse.errors import Conflict
from pilothouse.store.database import Database, Row, Transaction


async def cancel_run(db: Database, run_id: str, *, principal: str, reason: str = "") -> Row:
    """Cancels a run and everything it started; one that is running shows `cancelling` until its worker has proved it.

    Raises NotFound, and Conflict where the run has ended otherwise.
    """
    row = await db.transaction(lambda tx: _cancel(tx, run_id, principal=principal, reason=reason))
    db.notify(WAKE_CANCEL)
    return row


def _cancel(tx: Transaction, run_id: str, *, principal: str, reason: str) -> Row:
    run = runs.run_in(tx, run_id)
    if run["state"] in (RunState.SUCCEEDED, RunState.FAILED):
        raise Conflict(f"run {run_id} has {run['state']} already; there is nothing to cancel")
    cancel_lineage(tx, run_id, principal=principal, reason=reason)
    return runs.run_in(tx, run_id)


@dataclass(frozen=True, slots=True)
class Lineage:
    """A run and what it has started, as far as it has not ended, and the reservations that they hold. Schedules are
    declared by Apps and not by runs, so none belongs to a lineage.
    """

    root_id: str
    runs: list[Row]
    reservations: list[Row]


async def cancel_whole_lineage(
    db: Database, run_id: str, *, principal: str, reason: str = "", dry_run: bool = False
) -> Lineage:
    """Cancels the root of a run and all that came of it, whichever member is named. With `dry_run` only tells what.

    Raises NotFound, and Conflict where nothing of the lineage is left to cancel.
    """

    def work(tx: Transaction) -> Lineage:
        found = lineage_in(tx, runs.run_in(tx, run_id)["root_id"])
        if dry_run:
            return found
        if not found.runs:
            raise Conflict(f"everything of the lineage of run {run_id} has ended already; there is nothing to cancel")
        cancel_lineage(tx, found.root_id, principal=principal, reason=reason)
        after = (runs.run_in(tx, row["id"]) for row in found.runs)
        return Lineage(
            found.root_id, [_changed(*pair) for pair in zip(found.runs, after, strict=True)], found.reservations
        )

    if dry_run:
        return await db.read(work)
    lineage = await db.transaction(work)
    db.notify(WAKE_CANCEL)
    return lineage


async def plan_cancel(db: Database, run_id: str) -> Lineage:
    """What a cancel of this run would cancel. Raises NotFound."""
    return await db.read(lambda tx: lineage_in(tx, runs.run_in(tx, run_id)["id"]))


def lineage_in(tx: Transaction, root_id: str) -> Lineage:
    found = tx.fetch_all("lineage_of_run", id=root_id)
    held = tx.fetch_many("held_reservations", [{"run_id": row["id"]} for row in found])
    return Lineage(root_id, found, sorted(held, key=lambda row: str(row["id"])))


def _changed(before: Row, after: Row) -> Row:
    return before | {"state": after["state"], "cancel_requested_at": after["cancel_requested_at"]}


def cancel_lineage(tx: Transaction, run_id: str, *, principal: str, reason: str) -> None:
    """Cancels what is idle among a run and its descendants, and asks the workers of what is running."""
    lineage = [row["id"] for row in tx.fetch_all("descendants", id=run_id)]
    if not lineage:
        return
    waits.lock_runs(tx, lineage)
    was = {row["id"]: row["state"] for row in tx.fetch_many("open_states", [{"id": id} for id in lineage])}
    error = payloads.encode({"type": "Cancelled", "message": reason or "cancelled on request"})
    asked = tx.fetch_many("request_cancel", [{"id": id} for id in was])
    idle = [{"id": id, "was": state, "error": error} for id, state in was.items()]
    ended = [row | {"was": was[row["id"]]} for row in tx.fetch_many("cancel_idle_runs", idle)]
    tx.send_many("delete_waits", [{"id": row["id"]} for row in ended])
    asking.withdraw(tx, ended, principal=principal)
    waits.release_parents(tx, ended)
    _record_cancelled(tx, asked, ended, principal=principal, reason=reason)
    webhooks.queue_deliveries(tx, ended, principal=principal)


def _record_cancelled(
    tx: Transaction, asked: Sequence[Row], ended: Sequence[Row], *, principal: str, reason: str
) -> None:
    tally = counters.tally(tx)
    entries = [
        audit.entry(
            "run.cancel_requested",
            "run",
            row["id"],
            principal=principal,
            tenant=row["tenant"],
            before=RunState.RUNNING,
            after=RunState.RUNNING,
            reason=reason,
            attempt=row["attempt"],
        )
        for row in asked
    ]
    for row in ended:
        tally.move(row, row["was"], RunState.CANCELLED)
        entries.append(
            audit.entry(
                "run.cancelled",
                "run",
                row["id"],
                principal=principal,
                tenant=row["tenant"],
                before=row["was"],
                after=RunState.CANCELLED,
                reason=reason,
            )
        )
    audit.record(tx, entries)
