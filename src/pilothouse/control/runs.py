"""Runs: submit them, look at them, cancel them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pilothouse import payloads
from pilothouse.clock import SystemClock, new_id
from pilothouse.control import agents, audit, counters, waits
from pilothouse.control.admission import Admission
from pilothouse.control.coalescer import Coalescer
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.queues import QueueLimits
from pilothouse.domain.runs import PRIORITIES, RunState
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound, Refused
from pilothouse.store.database import Database, Row, Transaction

WAKE_RUNS = "runs"
WAKE_CANCEL = "cancel"
MAX_KEY_LENGTH = 255
MAX_BATCH = 500


@dataclass(frozen=True, slots=True)
class Request:
    """A run that somebody wants. `available_at` is an instant in microseconds; None: at once."""

    agent: str
    input: Any
    principal: str
    lane: str | None = None
    priority: int | None = None
    available_at: int | None = None
    idempotency_key: str | None = None
    tenant: str = "default"
    parent_id: str | None = None
    root_id: str | None = None
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a request. `is_new` is False where its idempotency key had made the run before."""

    id: str
    state: str
    is_new: bool


class Submitter:
    """Submits runs; concurrent callers of one process share transactions, and each has its own answer."""

    def __init__(self, db: Database, limits: QueueLimits | None = None) -> None:
        self._db = db
        self._admission = Admission(limits or QueueLimits())
        self._coalescer: Coalescer[Request, Submitted] = Coalescer(self.submit_batch, limit=MAX_BATCH, in_flight=2)

    async def submit(self, request: Request) -> Submitted:
        """Returns once the run is durable. Raises NotFound, InvalidInput, Conflict, QueueFull or StoreUnavailable."""
        return await self._coalescer.ask(request)

    async def submit_batch(self, requests: Sequence[Request]) -> list[Submitted | Refused]:
        """Submits many runs in one transaction; a refused one leaves the others untouched."""
        answers = await self._db.transaction(lambda tx: submit_runs(tx, requests, self._admission))
        self._db.notify(WAKE_RUNS)
        return answers

    async def close(self) -> None:
        await self._coalescer.close()


def submit_runs(
    tx: Transaction, requests: Sequence[Request], admission: Admission | None = None
) -> list[Submitted | Refused]:
    """The verb itself, for any number of requests; the answers come in their order.

    Without an `admission` the queues take them however full they are: what is due by a promise made before.
    """
    planned = plan_runs(tx, requests)
    if admission is not None:
        planned = admission.admit(tx, planned, SystemClock().monotonic())
    return insert_planned(tx, requests, planned)


def insert_planned(
    tx: Transaction, requests: Sequence[Request], planned: Sequence[Row | Refused]
) -> list[Submitted | Refused]:
    """Inserts what was planned and not refused; the answers in the order of the requests."""
    rows = [row for row in planned if isinstance(row, dict)]
    answers = insert_runs(tx, requests, rows)
    return [row if isinstance(row, Refused) else answers[str(row["id"])] for row in planned]


def plan_runs(tx: Transaction, requests: Sequence[Request]) -> list[Row | Refused]:
    """Holds each request against its agent; a row to insert, or the reason why not."""
    names = sorted({request.agent for request in requests})
    known = {row["name"]: row for row in tx.fetch_many("agents_by_name", [{"name": name} for name in names])}
    missing = any(name not in known for name in names)
    every_name = [row["name"] for row in agents.list_in(tx)] if missing else []
    return [_plan_run(request, known.get(request.agent), every_name) for request in requests]


def _plan_run(request: Request, agent: Row | None, every_name: Sequence[str]) -> Row | Refused:
    if agent is None:
        return agents.unknown_agent(request.agent, every_name)
    try:
        agents.check_input(request.agent, agent["input_schema"], request.input)
        _check_options(request)
        text = payloads.encode(request.input)
    except ValueError as error:
        return InvalidInput(f"the input of agent {request.agent!r} {error}", [FieldError("input", str(error))])
    except InvalidInput as refused:
        return refused
    return {
        "id": request.id,
        "tenant": request.tenant,
        "agent": request.agent,
        "lane": request.lane or agent["lane"],
        "priority": agent["priority"] if request.priority is None else request.priority,
        "available_at": request.available_at,
        "max_attempts": agent["max_attempts"],
        "max_losses": agent["max_losses"],
        "run_timeout_us": agent["run_timeout_us"],
        "input": text,
        "idempotency_key": request.idempotency_key,
        "parent_id": request.parent_id,
        "root_id": request.root_id or request.id,
    }


def _check_options(request: Request) -> None:
    if request.lane is not None and request.lane not in set(LANE_ORDER):
        raise _bad_option("lane", f"{request.lane!r} is not a lane; use {', '.join(LANE_ORDER)}")
    if request.priority is not None and request.priority not in PRIORITIES:
        raise _bad_option("priority", f"{request.priority} is outside {PRIORITIES[0]} to {PRIORITIES[-1]}")
    if not request.tenant or len(request.tenant) > MAX_KEY_LENGTH:
        raise _bad_option("tenant", f"a tenant has 1 to {MAX_KEY_LENGTH} characters")
    key = request.idempotency_key
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise _bad_option("idempotency_key", f"a key has 1 to {MAX_KEY_LENGTH} characters")


def _bad_option(name: str, message: str) -> InvalidInput:
    return InvalidInput(f"{name}: {message}", [FieldError(name, message)])


def insert_runs(tx: Transaction, requests: Sequence[Request], rows: Sequence[Row]) -> dict[str, Submitted | Refused]:
    """Inserts planned rows with their audit; the answer of each by the id that was asked for."""
    if not rows:
        return {}
    new = {row["id"] for row in tx.fetch_many("insert_runs", rows)}
    principals = {request.id: request.principal for request in requests}
    created = [row for row in rows if row["id"] in new]
    _record_submitted(tx, created, principals)
    answers: dict[str, Submitted | Refused] = {id: Submitted(id, RunState.QUEUED, is_new=True) for id in new}
    if len(created) < len(rows):
        answers |= _answers_of_known_keys(tx, [row for row in rows if row["id"] not in new])
    return answers


def _record_submitted(tx: Transaction, created: Sequence[Row], principals: dict[str, str]) -> None:
    tally = counters.tally(tx)
    entries = []
    for row in created:
        tally.enter(row, RunState.QUEUED)
        entries.append(
            audit.entry(
                "run.submitted",
                "run",
                row["id"],
                principal=principals[row["id"]],
                tenant=row["tenant"],
                after=RunState.QUEUED,
                run_id=row["parent_id"],
            )
        )
    audit.record(tx, entries)


def _answers_of_known_keys(tx: Transaction, rows: Sequence[Row]) -> dict[str, Submitted | Refused]:
    wanted = {row["id"]: row for row in rows}
    keyed = [{name: row[name] for name in ("id", "tenant", "idempotency_key")} for row in rows]
    known = tx.fetch_many("runs_by_idempotency_key", keyed)
    return {row["wanted_id"]: _answer_of_known_key(row, wanted[row["wanted_id"]]) for row in known}


def _answer_of_known_key(known: Row, wanted: Row) -> Submitted | Refused:
    if (known["agent"], known["input"]) == (wanted["agent"], wanted["input"]):
        return Submitted(known["id"], known["state"], is_new=False)
    return Conflict(
        f"idempotency key {wanted['idempotency_key']!r} already made run {known['id']} of agent {known['agent']!r} "
        "from another input; use a new key for new work"
    )


async def get_run(db: Database, run_id: str) -> Row:
    """One run. Raises NotFound."""
    return await db.read(lambda tx: run_in(tx, run_id))


def run_in(tx: Transaction, run_id: str) -> Row:
    row = tx.fetch_one("run_by_id", id=run_id)
    if row is None:
        raise unknown_run(run_id)
    return row


def unknown_run(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}; `pilothouse runs list` shows the latest")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs to list. Instants in microseconds; None: any."""

    state: str | None = None
    agent: str | None = None
    lane: str | None = None
    tenant: str | None = None
    parent_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None


async def list_runs(db: Database, wanted: Filter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """Newest first; `after` is the last id of the page before."""
    return await db.read(
        lambda tx: tx.fetch_all(
            "list_runs",
            after=after,
            limit=limit,
            state=wanted.state,
            agent=wanted.agent,
            lane=wanted.lane,
            tenant=wanted.tenant,
            parent_id=wanted.parent_id,
            created_after=wanted.created_after,
            created_before=wanted.created_before,
        )
    )


async def cancel_run(db: Database, run_id: str, *, principal: str, reason: str = "") -> Row:
    """Cancels a run and everything it started; one that is running shows `cancelling` until its worker has proved it.

    Raises NotFound, and Conflict where the run has ended otherwise.
    """
    row = await db.transaction(lambda tx: _cancel(tx, run_id, principal=principal, reason=reason))
    db.notify(WAKE_CANCEL)
    return row


def _cancel(tx: Transaction, run_id: str, *, principal: str, reason: str) -> Row:
    run = run_in(tx, run_id)
    if run["state"] in (RunState.SUCCEEDED, RunState.FAILED):
        raise Conflict(f"run {run_id} has {run['state']} already; there is nothing to cancel")
    cancel_lineage(tx, run_id, principal=principal, reason=reason)
    return run_in(tx, run_id)


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
    waits.release_parents(tx, ended)
    _record_cancelled(tx, asked, ended, principal=principal, reason=reason)


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
