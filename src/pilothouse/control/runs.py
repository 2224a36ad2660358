"""Runs: submit them, look at them, cancel them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pilothouse import payloads
from pilothouse.clock import SystemClock, new_id
from pilothouse.control import agents, audit, blobs, counters, switchboard
from pilothouse.control.admission import Admission
from pilothouse.control.coalescer import Coalescer
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.queues import QueueLimits
from pilothouse.domain.runs import PRIORITIES, RunState
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound, QueueFull, Refused, SwitchedOff
from pilothouse.store.database import Database, Row, Transaction

WAKE_RUNS = "runs"
WAKE_CANCEL = "cancel"
DELIVERY_AGENT = "pilothouse.webhook"
"""The built-in agent that tells a URL of a run's end."""

MAX_URL_LENGTH = 2048
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
    webhook_url: str | None = None
    concurrency_key: str | None = None
    user_id: str | None = None
    traceparent: str | None = None
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
        """Returns once the run is durable.

        Raises NotFound, InvalidInput, Conflict, SwitchedOff, QueueFull or StoreUnavailable.
        """
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
    is_delivery = all(request.agent == DELIVERY_AGENT for request in requests)  # of the end of a run that was taken
    admitted = planned if is_delivery else switchboard.turn_away(tx, planned)
    if admission is not None:
        admitted = admission.admit(tx, admitted, SystemClock().monotonic())
    answers = insert_planned(tx, requests, admitted)
    if not any(isinstance(answer, QueueFull | SwitchedOff) for answer in answers):
        return answers
    known = _known_of_turned_away(tx, planned, answers)
    return [known.get(request.id, answer) for request, answer in zip(requests, answers, strict=True)]


def _known_of_turned_away(
    tx: Transaction, planned: Sequence[Row | Refused], answers: Sequence[Submitted | Refused]
) -> dict[str, Submitted | Refused]:
    """A run that was accepted before takes no room: who asks for it again is told of it, whatever keeps others out."""
    turned_away = (
        row for row, answer in zip(planned, answers, strict=True) if isinstance(answer, QueueFull | SwitchedOff)
    )
    keyed = [row for row in turned_away if isinstance(row, dict) and row["idempotency_key"] is not None]
    return _answers_of_known_keys(tx, blobs.pack(keyed, "input").rows) if keyed else {}


def insert_planned(
    tx: Transaction, requests: Sequence[Request], planned: Sequence[Row | Refused]
) -> list[Submitted | Refused]:
    """Inserts what was planned and not refused; the answers in the order of the requests."""
    rows = [row for row in planned if isinstance(row, dict)]
    answers = insert_runs(tx, requests, rows)
    return [row if isinstance(row, Refused) else answers[str(row["id"])] for row in planned]


def plan_runs(tx: Transaction, requests: Sequence[Request]) -> list[Row | Refused]:
    """Holds each request against its agent; a row to insert, or the reason why not."""
    names = sorted({request.agent for request in requests} | {DELIVERY_AGENT for r in requests if r.webhook_url})
    known = {row["name"]: row for row in tx.fetch_many("agents_by_name", [{"name": name} for name in names])}
    missing = any(request.agent not in known for request in requests)
    every_name = [row["name"] for row in agents.list_in(tx)] if missing else []
    can_tell = DELIVERY_AGENT in known
    return [_plan_run(request, known.get(request.agent), every_name, can_tell=can_tell) for request in requests]


def _plan_run(request: Request, agent: Row | None, every_name: Sequence[str], *, can_tell: bool) -> Row | Refused:
    if agent is None:
        return agents.unknown_agent(request.agent, every_name)
    try:
        agents.check_input(request.agent, agent["input_schema"], request.input)
        _check_options(request)
        _check_webhook(request.webhook_url, can_tell=can_tell)
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
        "webhook_url": request.webhook_url,
        "concurrency_key": request.concurrency_key,
        "user_id": request.user_id,
        "traceparent": request.traceparent,
    }


def _check_options(request: Request) -> None:
    if request.lane is not None and request.lane not in set(LANE_ORDER):
        raise _bad_option("lane", f"{request.lane!r} is not a lane; use {', '.join(LANE_ORDER)}")
    if request.priority is not None and request.priority not in PRIORITIES:
        raise _bad_option("priority", f"{request.priority} is outside {PRIORITIES[0]} to {PRIORITIES[-1]}")
    if not request.tenant or len(request.tenant) > MAX_KEY_LENGTH:
        raise _bad_option("tenant", f"a tenant has 1 to {MAX_KEY_LENGTH} characters")
    for option in ("idempotency_key", "concurrency_key", "user_id"):
        key = getattr(request, option)
        if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
            raise _bad_option(option, f"a key has 1 to {MAX_KEY_LENGTH} characters")


def _check_webhook(url: str | None, *, can_tell: bool) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and len(url) <= MAX_URL_LENGTH
    except ValueError:
        is_usable = False
    if not is_usable:
        told = f"{url[:100]!r} cannot be told; write http:// or https://, a host, at most {MAX_URL_LENGTH} characters"
        raise _bad_option("webhook_url", told)
    if not can_tell:
        told = "no worker delivers webhooks; give the workers a secret to sign with, PILOTHOUSE_WEBHOOK_SECRET"
        raise _bad_option("webhook_url", told)


def _bad_option(name: str, message: str) -> InvalidInput:
    return InvalidInput(f"{name}: {message}", [FieldError(name, message)])


def insert_runs(tx: Transaction, requests: Sequence[Request], rows: Sequence[Row]) -> dict[str, Submitted | Refused]:
    """Inserts planned rows with their audit; the answer of each by the id that was asked for."""
    if not rows:
        return {}
    packed = blobs.pack(rows, "input")
    rows = packed.rows
    new = {row["id"] for row in tx.fetch_many("insert_runs", rows)}
    packed.keep(tx, new)
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
    return blobs.unpack(tx, [row], "input", "output")[0]


def unknown_run(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}; `pilothouse runs list` shows the latest")
