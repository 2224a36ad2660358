"""Whether Pilothouse can do its work now, and if not, why: the database, its schema, the workers, the agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pilothouse.control import agents, workers
from pilothouse.errors import StoreError
from pilothouse.store.database import Database, Row
from pilothouse.store.migrations import ensure_current

ANSWER_SECONDS = 5.0
WORKERS_LOOKED_AT = 1000

Status = Literal["ready", "degraded", "not_ready"]
_ORDER: tuple[Status, ...] = ("ready", "degraded", "not_ready")


@dataclass(frozen=True, slots=True)
class Check:
    """`degraded`: requests are taken and stored, but their runs will wait. `not_ready`: they cannot be taken."""

    status: Status
    detail: str


async def readiness(db: Database) -> dict[str, Check]:
    """The checks by name; those that need an answer of the database are left out while it gives none."""
    database = await _ask(db.check, "it answers")
    if database.status != "ready":
        return {"database": database}
    schema = await _ask(lambda: ensure_current(db), "it is current")
    if schema.status != "ready":
        return {"database": database, "schema": schema}
    return {"database": database, "schema": schema, "workers": await _workers(db), "agents": await _agents(db)}


def worst(checks: dict[str, Check]) -> Status:
    return max((check.status for check in checks.values()), key=_ORDER.index)


def is_live(worker: Row) -> bool:
    """Whether a worker takes runs: it neither drains nor has let its lease run out."""
    return bool(worker["state"] == "running" and worker["lease_until"] >= worker["now"])


async def _ask(question: Callable[[], None], answer: str) -> Check:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.to_thread(question)
    except TimeoutError:
        return Check("not_ready", f"no answer within {ANSWER_SECONDS:.0f} s")
    except StoreError as error:
        return Check("not_ready", str(error))
    return Check("ready", answer)


async def _workers(db: Database) -> Check:
    live = sum(1 for worker in await workers.list_workers(db, limit=WORKERS_LOOKED_AT) if is_live(worker))
    if not live:
        return Check("degraded", "no live worker: runs are taken but will wait; start one with `pilothouse worker`")
    return Check("ready", f"{live} live")


async def _agents(db: Database) -> Check:
    known = len(await agents.list_agents(db))
    if not known:
        return Check(
            "degraded", "no agent is registered: every submit is refused; start a worker of an App that has some"
        )
    return Check("ready", f"{known} registered")
