"""Dead letters: failed runs that nobody has dealt with. Redrive queues one again, dismiss sets it aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pilothouse.control import audit, counters, runs
from pilothouse.domain.runs import RunState
from pilothouse.errors import Conflict, FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction

FILTER_BATCH = 500

RedriveFrom = Literal["failure", "start"]
"""`failure`: finished steps keep their checkpoints. `start`: every step is executed again."""


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters; None: any. `error_type` is the name of the exception that failed the run."""

    agent: str | None = None
    tenant: str | None = None
    error_type: str | None = None


def list_in(tx: Transaction, wanted: DeadFilter, *, after: str | None = None, limit: int) -> list[Row]:
    """Newest first, within a transaction."""
    return tx.fetch_all(
        "list_dead",
        after=after,
        limit=limit,
        agent=wanted.agent,
        tenant=wanted.tenant,
        error_type=wanted.error_type,
    )


async def list_dead(db: Database, wanted: DeadFilter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """Newest first; `after` is the last id of the page before."""
    return await db.read(lambda tx: list_in(tx, wanted, after=after, limit=limit))


async def redrive_run(
    db: Database,
    run_id: str,
    *,
    principal: str,
    start_from: RedriveFrom = "failure",
    step: str | None = None,
    reason: str = "",
) -> Row:
    """Queues a failed run again with fresh attempts; with `step` the steps that had not finished when that one began
    are executed again. Raises NotFound, Conflict where it has not failed, InvalidInput where it has no such step.
    """

    def work(tx: Transaction) -> Row:
        _expect_failed(tx, run_id, "redriven")
        why = reason
        if step is not None:
            _forget(tx, [run_id], since=_began(tx, run_id, step))
            why = f"from step {step!r}" + (f": {reason}" if reason else "")
        _redrive(tx, [run_id], start_from, principal=principal, reason=why)
        return runs.run_in(tx, run_id)

    row = await db.transaction(work)
    db.notify(runs.WAKE_RUNS)
    return row


async def redrive_many(
    db: Database, wanted: DeadFilter, *, principal: str, start_from: RedriveFrom = "failure", reason: str = ""
) -> int:
    """Queues every dead letter of the filter again; returns how many."""
    count = await _for_each_batch(
        db, wanted, lambda tx, ids: _redrive(tx, ids, start_from, principal=principal, reason=reason)
    )
    db.notify(runs.WAKE_RUNS)
    return count


async def dismiss_run(db: Database, run_id: str, *, principal: str, reason: str = "") -> Row:
    """Sets a failed run aside; it stays in the run log. Raises NotFound, and Conflict where it has not failed."""

    def work(tx: Transaction) -> Row:
        _expect_failed(tx, run_id, "dismissed")
        _dismiss(tx, [run_id], principal=principal, reason=reason)
        return runs.run_in(tx, run_id)

    return await db.transaction(work)


async def dismiss_many(db: Database, wanted: DeadFilter, *, principal: str, reason: str = "") -> int:
    """Sets every dead letter of the filter aside; returns how many."""
    return await _for_each_batch(db, wanted, lambda tx, ids: _dismiss(tx, ids, principal=principal, reason=reason))


async def _for_each_batch(db: Database, wanted: DeadFilter, act: Callable[[Transaction, Sequence[str]], int]) -> int:
    """Goes through the dead letters of a filter, newest first, a bounded number in each transaction."""
    total, after = 0, None
    while True:
        page = await list_dead(db, wanted, after=after, limit=FILTER_BATCH)
        if not page:
            return total
        ids = [row["id"] for row in page]
        total += await db.transaction(lambda tx, ids=ids: act(tx, ids))  # type: ignore[misc]  # bound per batch
        after = ids[-1]


def _expect_failed(tx: Transaction, run_id: str, verb: str) -> None:
    run = tx.fetch_one("lock_run", id=run_id)
    if run is None:
        raise runs.unknown_run(run_id)
    if run["state"] != RunState.FAILED:
        raise Conflict(f"run {run_id} is {run['state']}; only a failed run can be {verb}")


def _redrive(tx: Transaction, ids: Sequence[str], start_from: RedriveFrom, *, principal: str, reason: str) -> int:
    redriven = tx.fetch_many("redrive_runs", [{"id": id} for id in ids])
    if start_from == "start" and redriven:
        _forget(tx, [row["id"] for row in redriven], since=0)
    tally = counters.tally(tx)
    for row in redriven:
        tally.move(row, RunState.FAILED, RunState.QUEUED)
    audit.record(tx, [_entry("run.redriven", row, RunState.QUEUED, principal, reason) for row in redriven])
    return len(redriven)


def _began(tx: Transaction, run_id: str, step: str) -> int:
    """When a step began. Raises InvalidInput."""
    row = tx.fetch_one("beginning_of_step", run_id=run_id, key=step)
    if row is None:
        told = f"run {run_id} has no finished step {step!r}; `pilothouse runs show {run_id}` lists its steps"
        raise InvalidInput(f"step: {told}", [FieldError("step", told)])
    return int(row["started_at"])


def _forget(tx: Transaction, ids: Sequence[str], *, since: int) -> None:
    """Steps that finished at this instant or later are executed again."""
    rows = [{"id": id, "since": since} for id in ids]
    tx.send_many("delete_answers", rows)
    tx.send_many("forget_steps", rows)


def _dismiss(tx: Transaction, ids: Sequence[str], *, principal: str, reason: str) -> int:
    dismissed = tx.fetch_many("dismiss_runs", [{"id": id} for id in ids])
    audit.record(tx, [_entry("run.dismissed", row, RunState.FAILED, principal, reason) for row in dismissed])
    return len(dismissed)


def _entry(action: str, row: Row, after: RunState, principal: str, reason: str) -> audit.AuditRow:
    return audit.entry(
        action,
        "run",
        row["id"],
        principal=principal,
        tenant=row["tenant"],
        before=RunState.FAILED,
        after=after,
        reason=reason or None,
    )
