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

ATTEMPTS_SHOWN = 500


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """What a worker tells the database about itself. `slots` maps each lane, and `shared`, to its number of slots;
    `is_enabled` False: it claims nothing.
    """

    id: str
    host: str
    pid: int
    app: str
    version: str
    agents: Sequence[AgentVersion]
    slots: dict[str, int]
    is_enabled: bool = True


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
        is_enabled=int(card.is_enabled),
        lease_us=lease_us,
    )
    audit.record(tx, [audit.entry("worker.started", "worker", card.id, principal=principal, after="running")])


def renew(tx: Transaction, worker_id: str, *, lease_us: int) -> str | None:
    """Extends the lease; the worker's state, or None where the lease was reaped."""
    row = tx.fetch_one("renew_worker", id=worker_id, lease_us=lease_us)
    return None if row is None else str(row["state"])


def acknowledge_switches(tx: Transaction, worker_id: str, epoch: int) -> None:
    """From now on the worker acts by the switches of this epoch."""
    tx.execute("acknowledge_switches", id=worker_id, epoch=epoch)


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
    return await db.read(lambda tx: list_in(tx, limit=limit))


def list_in(tx: Transaction, *, limit: int) -> list[Row]:
    """The same within a transaction."""
    return tx.fetch_all("list_workers", limit=limit)


# --- what people see ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers, live ones first, what runs on them now, and the epoch of the switches that they should act by."""

    workers: list[Row]
    attempts: list[Row]
    epoch: int


async def look(db: Database, *, limit: int) -> Crew:
    """All of it from one snapshot; at most `limit` workers, and five hundred attempts."""

    def work(tx: Transaction) -> Crew:
        switches = tx.fetch_one("switch_epoch")
        attempts = tx.fetch_all("attempts_of_workers", limit=ATTEMPTS_SHOWN)
        return Crew(list_in(tx, limit=limit), attempts, int(switches["epoch"]) if switches else 0)

    return await db.read(work)
