"""Workers: they register, renew one lease each, drain and stop; the janitor ends the lease of those that vanished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse import payloads
from pilothouse.control import agents, audit
from pilothouse.control.agents import AgentCard
from pilothouse.control.concurrency import AgentVersion
from pilothouse.errors import Conflict, NotFound
from pilothouse.store.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """What a worker tells the database about itself. `slots` maps each lane, and `shared`, to its number of slots."""

    id: str
    host: str
    pid: int
    app: str
    version: str
    agents: Sequence[AgentVersion]
    slots: dict[str, int]


def register(tx: Transaction, card: WorkerCard, cards: Sequence[AgentCard], *, lease_us: int) -> None:
    """Makes a worker and its agents known; from now on it holds a lease."""
    principal = f"worker:{card.id}"
    agents.register(tx, cards, principal=principal)
    tx.execute(
        "insert_worker",
        id=card.id,
        host=card.host,
        pid=card.pid,
        app=card.app,
        version=card.version,
        agents=payloads.encode([agent.name for agent in card.agents]),
        state_versions=payloads.encode({agent.name: [agent.oldest, agent.newest] for agent in card.agents}),
        slots=payloads.encode(card.slots),
        lease_us=lease_us,
    )
    audit.record(tx, [audit.entry("worker.started", "worker", card.id, principal=principal, after="running")])


def renew(tx: Transaction, worker_id: str, *, lease_us: int) -> str | None:
    """Extends the lease; the worker's state, or None where the lease was reaped."""
    row = tx.fetch_one("renew_worker", id=worker_id, lease_us=lease_us)
    return None if row is None else str(row["state"])


def stop(tx: Transaction, worker_id: str) -> None:
    """A worker says good-bye; it holds nothing any more."""
    if tx.fetch_one("stop_worker", id=worker_id) is not None:
        principal = f"worker:{worker_id}"
        audit.record(tx, [audit.entry("worker.stopped", "worker", worker_id, principal=principal, after="stopped")])


def start_draining(tx: Transaction, worker_id: str, *, principal: str) -> bool:
    if tx.fetch_one("drain_worker", id=worker_id) is None:
        return False
    audit.record(
        tx,
        [audit.entry("worker.draining", "worker", worker_id, principal=principal, before="running", after="draining")],
    )
    return True


async def drain_worker(db: Database, worker_id: str, *, principal: str) -> Row:
    """Asks a worker to finish what runs, claim nothing and exit. Raises NotFound, Conflict where it does not run."""

    def work(tx: Transaction) -> Row:
        row = tx.fetch_one("worker_by_id", id=worker_id)
        if row is None:
            raise NotFound(f"there is no worker {worker_id}; `pilothouse workers list` shows them")
        if not start_draining(tx, worker_id, principal=principal):
            raise Conflict(f"worker {worker_id} is {row['state']}; only a running worker can be drained")
        return row | {"state": "draining"}

    return await db.transaction(work)


async def list_workers(db: Database, *, limit: int = 50) -> list[Row]:
    """Live ones first. `running` is the number of attempts each holds now."""
    return await db.read(lambda tx: tx.fetch_all("list_workers", limit=limit))
