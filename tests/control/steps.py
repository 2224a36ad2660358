"""Short ways to move runs through their states, without a worker process."""

from __future__ import annotations

from typing import Any

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control import agents, attempts, runs, workers
from pilothouse.control.agents import AgentCard
from pilothouse.control.asking import Ask
from pilothouse.control.attempts import Checkpoint, ClaimedRun, Settlement
from pilothouse.control.concurrency import AgentVersion
from pilothouse.control.runs import Request, Submitted
from pilothouse.control.waits import Wait
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.lanes import LANE_ORDER, Demand, Lane
from pilothouse.domain.retries import Backoff
from pilothouse.domain.runs import Ending, Limits, Spent, next_state
from pilothouse.errors import Refused
from pilothouse.store.database import Database, Row

LEASE_US = 60_000_000
NAME_SCHEMA = payloads.encode(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
)
ANY_SCHEMA = "{}"
ARGUMENTS = {"order": 7, "amount_usd": 80}
SCHEMA = {
    "type": "object",
    "properties": {"order": {"type": "integer"}, "amount_usd": {"type": "number", "maximum": 100}},
    "required": ["order", "amount_usd"],
    "additionalProperties": False,
}


def card(name: str, *, schema: str = ANY_SCHEMA, lane: str = "normal", **changes: Any) -> AgentCard:
    values: dict[str, Any] = {
        "name": name,
        "app": "tests",
        "description": "",
        "lane": lane,
        "priority": 0,
        "max_attempts": 3,
        "max_losses": 2,
        "timeout_us": 300_000_000,
        "run_timeout_us": None,
        "input_schema": schema,
        "output_schema": ANY_SCHEMA,
        "state_version": 1,
        "fingerprint": "f",
    }
    return AgentCard(**(values | changes))


def register(db: Database, *cards: AgentCard) -> None:
    db.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))


def start_worker(db: Database, *, lease_us: int = LEASE_US) -> str:
    """A worker with a lease, as the database knows it; its id."""
    worker = WorkerCard(new_id(), "host", 1, "tests", "0", [], {})
    db.transaction_blocking(lambda tx: workers.register(tx, worker, [], lease_us=lease_us))
    return worker.id


def request(agent: str = "echo", input: Any = None, **options: Any) -> Request:
    return Request(agent, {} if input is None else input, principal="test", **options)


def submit_all(db: Database, *requests: Request) -> list[Submitted | Refused]:
    return db.transaction_blocking(lambda tx: runs.submit_runs(tx, requests))


def submit(db: Database, agent: str = "echo", input: Any = None, **options: Any) -> str:
    (answer,) = submit_all(db, request(agent, input, **options))
    assert isinstance(answer, Submitted), answer
    return answer.id


def demand(*, reserved: int = 100, shared: int = 0, **lanes: int) -> Demand:
    own = {lane: lanes.get(lane, 0 if lanes else reserved) for lane in LANE_ORDER}
    return Demand({Lane(lane): count for lane, count in own.items()}, shared)


def claim(
    db: Database, worker_id: str, *, wanted: Demand | None = None, agents: tuple[str, ...] = ("echo",)
) -> list[ClaimedRun]:
    known = [version_of(name) for name in agents]
    return db.transaction_blocking(lambda tx: attempts.claim_runs(tx, worker_id, wanted or demand(), known))


def version_of(name: str, *, oldest: int = 1, newest: int = 1) -> AgentVersion:
    return AgentVersion(name, oldest, newest, "f")


def ended(
    run: ClaimedRun,
    ending: Ending = "succeeded",
    *,
    waits: tuple[Wait, ...] = (),
    wake_at: int | None = None,
    delay_seconds: float | None = None,
) -> Settlement:
    limits = Limits(run.max_attempts, run.max_losses, Backoff(first_seconds=0.0))
    spent = Spent(run.failures, run.losses)
    error = payloads.encode({"type": "ValueError", "message": "no"}) if ending in ("failed", "fatal") else None
    return Settlement(
        run_id=run.run_id,
        attempt=run.attempt,
        parent_id=run.parent_id,
        ending=ending,
        next=next_state(ending, spent, limits, delay_seconds=delay_seconds, jitter=0.0),
        output="1" if ending == "succeeded" else None,
        error=error,
        waits=waits,
        wake_at=wake_at,
    )


def settle(db: Database, *settlements: Settlement, principal: str = "test") -> set[tuple[str, int]]:
    return db.transaction_blocking(lambda tx: attempts.settle_attempts(tx, settlements, principal=principal))


def checkpoint(run: ClaimedRun, key: str, result: Any = 1, *, children: tuple[Request, ...] = ()) -> Checkpoint:
    return Checkpoint(
        run_id=run.run_id,
        attempt=run.attempt,
        key=key,
        kind="child" if children else "step",
        request_hash="h",
        request="r",
        state="succeeded",
        result=payloads.encode(result),
        error=None,
        tries=1,
        state_version=1,
        started_at=run.claimed_at,
        finished_at=run.claimed_at,
        children=children,
    )


def write(db: Database, *checkpoints: Checkpoint) -> list[Exception | None]:
    return db.transaction_blocking(lambda tx: attempts.write_checkpoints(tx, checkpoints))


def reap(db: Database, worker_id: str) -> list[tuple[str, int]]:
    """As if the worker had vanished and its lease had run out."""

    def work(tx: Any) -> list[tuple[str, int]]:
        tx.execute("expire_worker", id=worker_id)
        return attempts.reap_workers(tx, principal="system:janitor")

    return db.transaction_blocking(work)


def run_of(db: Database, run_id: str) -> Row:
    return db.read_blocking(lambda tx: runs.run_in(tx, run_id))


def state_of(db: Database, run_id: str) -> str:
    return str(run_of(db, run_id)["state"])


def actions_of(db: Database, entity_id: str) -> list[str]:
    rows = db.read_blocking(lambda tx: tx.fetch_all("audit_of_entity", entity_id=entity_id, after=0, limit=1000))
    return [row["action"] for row in rows]


def an_ask(**changes: Any) -> Ask:
    arguments = payloads.encode(ARGUMENTS)
    values: dict[str, Any] = {
        "id": new_id(),
        "key": "refund",
        "round": 1,
        "kind": "tool",
        "action": "refund",
        "title": "refund order 7",
        "recommendation": "do it",
        "reasoning": "",
        "risk_assessment": "tier 2",
        "risk": 2,
        "confidence": 0.5,
        "cost_microusd": 80_000_000,
        "billing": "none",
        "people_affected": 1,
        "is_reversible": 1,
        "alternatives": "[]",
        "arguments": arguments,
        "arguments_hash": payloads.digest(arguments),
        "arguments_schema": payloads.encode(SCHEMA),
        "reasons": "[]",
        "quorum": 1,
        "reviewer": "operator",
        "policy_version": None,
        "on_deadline": "wait",
        "deadline_us": None,
    }
    return Ask(**(values | changes))
