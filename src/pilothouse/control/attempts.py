"""Attempts: claim runs, write their checkpoints, settle them, and reap those whose worker is gone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pilothouse import payloads
from pilothouse.control import asking, audit, blobs, calls, cancels, counters, halts, runs, switchboard, waits, webhooks
from pilothouse.control.asking import Ask
from pilothouse.control.bookings import NO_BOOKING, Booking, Bookings
from pilothouse.control.calls import NO_CALLS, OwnedCalls, StepCalls
from pilothouse.control.concurrency import AgentVersion, Headroom
from pilothouse.control.limits import caps_reached
from pilothouse.control.switchboard import Claimable
from pilothouse.control.waits import Wait
from pilothouse.domain.calendars import UTC_CALENDAR, Calendar
from pilothouse.domain.lanes import AGEING_SECONDS, LANE_ORDER, Demand, Lane
from pilothouse.domain.retries import Backoff
from pilothouse.domain.runs import TERMINAL, Ending, Limits, Next, RunState, Spent, next_state, outcome_of
from pilothouse.errors import LeaseLost
from pilothouse.store.database import Row, Transaction

REAP_BATCH = 16
LIMITED_ROUNDS = 8
"""A claim looks again this often for runs in the place of those that a concurrency limit keeps back."""

LOSS_BACKOFF = Backoff(first_seconds=1.0, limit_seconds=60.0)

AttemptKey = tuple[str, int]
"""(run id, attempt number): the fencing token."""

# Named tuples and not dataclasses below, because they are made for every attempt and step, and cost half as much.


class ClaimedRun(NamedTuple):
    """What a worker gets to know of a run that it has claimed. Instants in microseconds of the database's clock."""

    run_id: str
    attempt: int
    tenant: str
    agent: str
    lane: Lane
    input: str
    failures: int
    losses: int
    max_attempts: int
    max_losses: int
    parent_id: str | None
    root_id: str
    deadline_at: int | None
    created_at: int
    claimed_at: int
    is_cancelling: bool
    user_id: str | None = None
    traceparent: str | None = None

    @property
    def key(self) -> AttemptKey:
        return (self.run_id, self.attempt)


class Checkpoint(NamedTuple):
    """A step's stored result, and what is written with it: the child runs that it starts, the calls that it made, what
    its agent remembers, as (name, JSON value), what it books, and what it asks people for.
    """

    run_id: str
    attempt: int
    key: str
    kind: str
    request_hash: str
    request: str
    state: str
    result: str | None
    error: str | None
    tries: int
    state_version: int
    started_at: int
    finished_at: int
    children: tuple[runs.Request, ...] = ()
    calls: StepCalls = NO_CALLS
    memories: tuple[tuple[str, str], ...] = ()
    booking: Booking = NO_BOOKING
    asks: tuple[Ask, ...] = ()


class LogLine(NamedTuple):
    run_id: str
    attempt: int
    at: int
    level: str
    message: str
    fields: str

    @property
    def key(self) -> AttemptKey:
        return (self.run_id, self.attempt)


class Settlement(NamedTuple):
    """How an attempt ended, and where its run goes from there. `has_asked`: it may have asked people for something."""

    run_id: str
    attempt: int
    parent_id: str | None
    ending: Ending
    next: Next
    output: str | None = None
    error: str | None = None
    reason: str | None = None
    failed_steps: tuple[str, ...] = ()
    wake_at: int | None = None
    waits: tuple[Wait, ...] = ()
    steps_executed: int = 0
    steps_replayed: int = 0
    has_asked: bool = False

    @property
    def key(self) -> AttemptKey:
        return (self.run_id, self.attempt)


def fence_worker(tx: Transaction, worker_id: str) -> None:
    """Everything a worker writes, it writes while it holds its lease. Raises LeaseLost."""
    if tx.fetch_one("fence_worker", id=worker_id) is None:
        raise LeaseLost(f"worker {worker_id} lost its lease; its runs go on elsewhere")


def claim_runs(tx: Transaction, worker_id: str, demand: Demand, agents: Sequence[AgentVersion]) -> list[ClaimedRun]:
    """Takes as many eligible runs as the worker has room for, and starts an attempt of each; none that is held."""
    allowed = switchboard.claimable(switchboard.tripped_in(tx), demand, agents)
    if allowed.demand.is_empty or not allowed.agents:
        return []
    if not any(agent.is_limited for agent in allowed.agents):
        return _start(tx, worker_id, agents, _pick(tx, allowed))
    return _claim_limited(tx, worker_id, allowed)


def _claim_limited(tx: Transaction, worker_id: str, allowed: Claimable) -> list[ClaimedRun]:
    """A claim of agents of which only so many runs may run at once."""
    demand, agents = allowed.demand, allowed.agents
    headroom, claimed = Headroom(tx, agents), list[ClaimedRun]()
    for _ in range(LIMITED_ROUNDS):
        wanted = replace(allowed, demand=demand, agents=headroom.open_agents(agents))
        picked = _pick(tx, wanted, headroom.full_keys())
        admitted = [row for row in picked if headroom.admit(row)]
        claimed += _start(tx, worker_id, agents, admitted)
        if len(admitted) == len(picked):
            break
        demand = demand.after(Counter(Lane(row["lane"]) for row in admitted))
    return claimed


def _start(tx: Transaction, worker_id: str, agents: Sequence[AgentVersion], taken: Sequence[Row]) -> list[ClaimedRun]:
    if not taken:
        return []
    by_name = {agent.name: agent for agent in agents}
    tx.send_many("take_runs", [_taken_row(row, by_name[row["agent"]]) for row in taken])
    tx.send_many("start_attempts", [_attempt_row(row, worker_id) for row in taken])
    tx.send_many("delete_waits", [{"id": row["id"]} for row in taken if row["was"] == RunState.WAITING])
    _record_claims(tx, taken, worker_id)
    return [claimed_run(row) for row in blobs.unpack(tx, taken, "input")]


def _taken_row(row: Row, agent: AgentVersion) -> Row:
    return {
        "id": row["id"],
        "attempt": row["attempt"],
        "claimed_at": row["claimed_at"],
        "state_version": agent.newest,
        "fingerprint": agent.fingerprint,
    }


def encode_versions(agents: Sequence[AgentVersion]) -> str:
    """The agents as the statements of the claim take them."""
    return payloads.encode([{"name": each.name, "oldest": each.oldest, "newest": each.newest} for each in agents])


def _pick(tx: Transaction, wanted: Claimable, full_keys: str = "[]") -> list[Row]:
    demand = wanted.demand
    room = [
        {"lane": lane, "reserved": demand.reserved[lane], "rank": rank}
        for rank, lane in enumerate(LANE_ORDER)
        if lane in demand.reserved
    ]
    return tx.fetch_all(
        "pick_runs",
        room=payloads.encode(room),
        agents=encode_versions(wanted.agents),
        held_tenants=payloads.encode(list(wanted.held_tenants)),
        full_keys=full_keys,
        shared=demand.shared,
        most=demand.most,
        ageing_us=int(AGEING_SECONDS * 1_000_000),
    )


def _attempt_row(row: Row, worker_id: str) -> Row:
    return {"run_id": row["id"], "number": row["attempt"], "worker_id": worker_id}


def claimed_run(row: Row) -> ClaimedRun:
    return ClaimedRun(
        run_id=row["id"],
        attempt=row["attempt"],
        tenant=row["tenant"],
        agent=row["agent"],
        lane=Lane(row["lane"]),
        input=row["input"],
        failures=row["failures"],
        losses=row["losses"],
        max_attempts=row["max_attempts"],
        max_losses=row["max_losses"],
        parent_id=row["parent_id"],
        root_id=row["root_id"],
        deadline_at=row["deadline_at"],
        created_at=row["created_at"],
        claimed_at=row["claimed_at"],
        is_cancelling=row["cancel_requested_at"] is not None,
        user_id=row["user_id"],
        traceparent=row["traceparent"],
    )


def _record_claims(tx: Transaction, taken: Sequence[Row], worker_id: str) -> None:
    principal = f"worker:{worker_id}"
    tally = counters.tally(tx)
    entries = []
    for row in taken:
        tally.move(row, row["was"], RunState.RUNNING)
        entries.append(_run_entry("run.claimed", row, principal=principal, before=row["was"], after="running"))
    audit.record(tx, entries)


def _run_entry(
    action: str, row: Row, *, principal: str, before: str, after: str, reason: str | None = None
) -> audit.AuditRow:
    return audit.entry(
        action,
        "run",
        row["id"],
        principal=principal,
        tenant=row["tenant"],
        before=before,
        after=after,
        reason=reason,
        attempt=row["attempt"],
    )


def write_checkpoints(
    tx: Transaction, checkpoints: Sequence[Checkpoint], calendar: Calendar = UTC_CALENDAR
) -> list[Exception | None]:
    """Stores checkpoints and starts their children; per checkpoint None, or why it was not stored.

    LeaseLost: the attempt does not hold its run any more. Refused: a child's input does not fit; nothing was stored.
    LimitReached: a limit has no room for what the step is about to do.
    """
    bookings = Bookings(tx, [c.booking for c in checkpoints if c.booking is not NO_BOOKING], calendar)
    children = [child for checkpoint in checkpoints for child in checkpoint.children]
    planned = dict(zip((c.id for c in children), runs.plan_runs(tx, children) if children else [], strict=True))
    refusals = [bookings.refusal(c.booking) or _first_refusal(c, planned) for c in checkpoints]
    accepted = [c for c, refusal in zip(checkpoints, refusals, strict=True) if refusal is None]
    stored = _insert_checkpoints(tx, accepted)
    written = [c for c in accepted if (c.run_id, c.key) in stored]
    bookings.write([c.booking for c in written if c.booking is not NO_BOOKING])
    _insert_children(tx, written, planned)
    calls.write_calls(tx, [OwnedCalls(c.run_id, c.key, c.attempt, c.calls) for c in written if c.calls is not NO_CALLS])
    halts.record_runaways(tx, written)
    tx.send_many(
        "keep_memories",
        [{"run_id": c.run_id, "name": name, "value": value} for c in written for name, value in c.memories],
    )
    asking.insert_asks(tx, [(c.run_id, ask) for c in written for ask in c.asks])
    return [
        refusal if refusal or (c.run_id, c.key) in stored else _fenced(c.run_id, c.attempt)
        for c, refusal in zip(checkpoints, refusals, strict=True)
    ]


def _first_refusal(checkpoint: Checkpoint, planned: Mapping[str, Row | Exception]) -> Exception | None:
    answers = (planned[child.id] for child in checkpoint.children)
    return next((answer for answer in answers if isinstance(answer, Exception)), None)


def _insert_checkpoints(tx: Transaction, checkpoints: Sequence[Checkpoint]) -> set[tuple[str, str]]:
    if not checkpoints:
        return set()
    rows = [
        {
            "run_id": c.run_id,
            "key": c.key,
            "attempt": c.attempt,
            "kind": c.kind,
            "request_hash": c.request_hash,
            "request": c.request,
            "state": c.state,
            "result": c.result,
            "error": c.error,
            "tries": c.tries,
            "state_version": c.state_version,
            "started_at": c.started_at,
            "finished_at": c.finished_at,
        }
        for c in checkpoints
    ]
    packed = blobs.pack(rows, "result", run_id="run_id")
    stored = {(row["run_id"], row["key"]) for row in tx.fetch_many("insert_checkpoints", packed.rows)}
    packed.keep(tx, {run_id for run_id, _ in stored})
    return stored


def _insert_children(tx: Transaction, parents: Sequence[Checkpoint], planned: Mapping[str, Row | Exception]) -> None:
    children = [child for parent in parents for child in parent.children]
    rows = [row for child in children if isinstance(row := planned[child.id], dict)]
    runs.insert_runs(tx, children, rows)


def _fenced(run_id: str, attempt: int) -> LeaseLost:
    return LeaseLost(f"attempt {run_id}.{attempt} does not hold its run any more; what it wrote was dropped")


def write_logs(tx: Transaction, lines: Sequence[LogLine]) -> None:
    if lines:
        tx.send_many("insert_logs", [line._asdict() for line in lines])


def write_progress(tx: Transaction, progress: Mapping[AttemptKey, tuple[int, int | None]]) -> None:
    """The latest `done` of `total` per attempt."""
    rows = [
        {"run_id": run_id, "attempt": attempt, "done": done, "total": total}
        for (run_id, attempt), (done, total) in progress.items()
    ]
    if rows:
        tx.send_many("set_progress", rows)


def settle_attempts(tx: Transaction, settlements: Sequence[Settlement], *, principal: str) -> set[AttemptKey]:
    """Ends attempts and moves their runs on; returns those that were still theirs to end.

    A child's end and its parent's going to sleep see each other, whichever comes first.
    """
    if not settlements:
        return set()
    lock_families(tx, settlements)
    packed = blobs.pack([_settle_row(s) for s in settlements], "output", run_id="run_id")
    settled = tx.fetch_many("settle_runs", packed.rows)
    packed.keep(tx, {row["id"] for row in settled})
    by_key = {s.key: s for s in settlements}
    tx.send_many("finish_attempts", [_finish_row(by_key[row["id"], row["attempt"]]) for row in settled])
    failed = [{"run_id": s.run_id, "attempt": s.attempt, "key": key} for s in settlements for key in s.failed_steps]
    tx.send_many("mark_retryable", failed)
    for row in settled:
        waits.add_waits(tx, row["id"], row["attempt"], by_key[row["id"], row["attempt"]].waits)
    waits.release_parents(tx, settled)
    _record_settled(tx, settled, by_key, principal)
    asking.withdraw_ended(tx, settled, {s.run_id for s in settlements if s.has_asked}, principal=principal)
    webhooks.queue_deliveries(tx, settled, principal=principal)
    for row in settled:
        if row["state"] == RunState.CANCELLED:
            cancels.cancel_lineage(tx, row["id"], principal=principal, reason="its parent was cancelled")
    return {(row["id"], row["attempt"]) for row in settled}


def lock_families(tx: Transaction, settlements: Sequence[Settlement], also: Sequence[str] = ()) -> None:
    """Locks the runs that are settled, their parents, and `also` others, in one order and before any is changed.

    A parent's row is what its going to sleep and its children's ends meet at: whichever comes second sees the first.
    What a run's going to sleep on a switch, or for want of room under a limit, and the change of that meet at is locked
    before any run.
    """
    waits.lock_switches(tx, (wait for s in settlements for wait in s.waits))
    if any(wait.kind == "limit" for s in settlements for wait in s.waits):
        tx.send("lock_limits")
    parents = [s.parent_id for s in settlements if s.parent_id and s.next.state in TERMINAL]
    if parents or also:
        waits.lock_runs(tx, [*parents, *also, *(s.run_id for s in settlements)])


def _settle_row(s: Settlement) -> Row:
    delay = s.next.delay_seconds
    return {
        "run_id": s.run_id,
        "attempt": s.attempt,
        "state": s.next.state,
        "delay_us": None if delay is None else int(delay * 1_000_000),
        "wake_at": s.wake_at,
        "output": s.output,
        "error": s.error,
        "failure": int(s.ending in ("failed", "fatal")),
        "loss": int(s.ending == "lost"),
    }


def _finish_row(s: Settlement) -> Row:
    return {
        "run_id": s.run_id,
        "number": s.attempt,
        "outcome": outcome_of(s.ending),
        "error": s.error,
        "steps_executed": s.steps_executed,
        "steps_replayed": s.steps_replayed,
    }


def _record_settled(
    tx: Transaction, settled: Sequence[Row], by_key: Mapping[AttemptKey, Settlement], principal: str
) -> None:
    tally = counters.tally(tx)
    entries = []
    for row in settled:
        settlement = by_key[row["id"], row["attempt"]]
        agent, lane, state = row["agent"], row["lane"], row["state"]
        tally.move(row, RunState.RUNNING, state)
        tally.attempt(agent, lane, outcome_of(settlement.ending))
        if row["finished_at"] is not None:
            tally.end(row, settlement.ending, settlement.error, has_asked=settlement.has_asked)
        action = settlement.next.action if state == settlement.next.state else "run.cancelled"
        entries.append(
            _run_entry(action, row, principal=principal, before="running", after=state, reason=settlement.reason)
        )
        entries += caps_reached(row, settlement.waits, settlement.reason, principal=principal)
    audit.record(tx, entries)


def reap_workers(tx: Transaction, *, principal: str) -> list[AttemptKey]:
    """Ends the lease of workers that stopped renewing it; their attempts are lost and their runs go on elsewhere."""
    reaped: list[AttemptKey] = []
    tx.execute("rebase_leases")
    for worker in tx.fetch_all("expired_workers", limit=REAP_BATCH):
        if tx.fetch_one("lose_worker", id=worker["id"]) is None:
            continue
        audit.record(
            tx,
            [
                audit.entry(
                    "worker.lost",
                    "worker",
                    worker["id"],
                    principal=principal,
                    before="running",
                    after="lost",
                    reason="its lease ran out",
                )
            ],
        )
        reason = f"worker {worker['id']} lost its lease"
        lost = [_lost(row, worker["id"], reason) for row in _running_attempts(tx, worker["id"])]
        reaped.extend(settle_attempts(tx, lost, principal=principal))
    return reaped


def held_by(tx: Transaction, worker_id: str) -> list[AttemptKey]:
    """The attempts that a worker holds."""
    return [(row["run_id"], row["number"]) for row in _running_attempts(tx, worker_id)]


def lose_attempts(tx: Transaction, worker_id: str, keys: Collection[AttemptKey]) -> set[AttemptKey]:
    """Ends those attempts that their worker still holds and knows nothing of; their runs go on in another attempt.

    Returns which. Raises LeaseLost.
    """
    fence_worker(tx, worker_id)
    rows = [row for row in _running_attempts(tx, worker_id) if (row["run_id"], row["number"]) in keys]
    reason = f"worker {worker_id} does not know of it any more"
    return settle_attempts(tx, [_lost(row, worker_id, reason) for row in rows], principal=f"worker:{worker_id}")


def _running_attempts(tx: Transaction, worker_id: str) -> list[Row]:
    return tx.fetch_all("running_attempts", worker_id=worker_id)


def _lost(row: Row, worker_id: str, reason: str) -> Settlement:
    limits = Limits(row["max_attempts"], row["max_losses"], LOSS_BACKOFF)
    following = next_state(
        "lost", Spent(row["failures"], row["losses"]), limits, delay_seconds=None, jitter=random.random()
    )
    error = None
    if following.state == RunState.FAILED:
        message = f"{row['losses'] + 1} workers died or vanished while they ran it, the last one {worker_id}"
        error = payloads.encode({"type": "WorkerLost", "message": message})
    return Settlement(
        run_id=row["run_id"],
        attempt=row["number"],
        parent_id=row["parent_id"],
        ending="lost",
        next=following,
        error=error,
        reason=reason,
    )
