"""Tenants: whose a thing is, what there is of each tenant."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from pilothouse.errors import NotFound
from pilothouse.store import tenancy
from pilothouse.store.database import Database, Row, Transaction

MAX_NUMBER = 2**63 - 1


class Owned(NamedTuple):
    """A kind of thing that belongs to a tenant: its word, and the statement that says whose one is."""

    word: str
    statement: str
    is_numbered: bool = False


OWNED = {
    "runs": Owned("run", "owner_of_run"),
    "schedules": Owned("schedule", "owner_of_schedule"),
    "audit": Owned("audit record", "owner_of_record", is_numbered=True),
    "approvals": Owned("approval", "owner_of_approval"),
    "effects": Owned("effect", "owner_of_effect"),
    "incidents": Owned("incident", "owner_of_incident"),
}
"""By the noun of its address: /api/v1/NOUN/NAME."""


async def expect_owner(db: Database, noun: str, name: str, *, tenant: str) -> None:
    """Raises NotFound for a thing of another tenant, in the same words as for one that does not exist."""
    owned = OWNED[noun]
    if await db.read(lambda tx: _owner_in(tx, owned, name)) != tenant:
        raise NotFound(f"there is no {owned.word} {name}")


def _owner_in(tx: Transaction, owned: Owned, name: str) -> str | None:
    if owned.is_numbered and not (name.isascii() and name.isdecimal() and int(name) <= MAX_NUMBER):
        return None
    row = tx.fetch_one(owned.statement, name=int(name) if owned.is_numbered else name)
    return None if row is None else str(row["tenant"])


async def list_tenants(db: Database) -> list[Row]:
    """Every tenant by name, with how many runs are in the run log and when it was last active."""
    return [_shown(row) for row in await db.read(lambda tx: tx.fetch_all("list_tenants", tenant=None))]


async def glance(db: Database) -> list[Row]:
    """Every tenant by name, with what is open of it; its cost does not grow with history."""
    return await db.read(lambda tx: tx.fetch_all("glance_at_tenants"))


async def show_tenant(db: Database, tenant: str) -> Row:
    """One tenant, with its rows by table and its latest erasure, if any. Raises NotFound."""
    row, characters, erasure = await db.read(lambda tx: _show_in(tx, tenant))
    if row is None and erasure is None:
        raise unknown_tenant(tenant)
    rows = await asyncio.to_thread(db.examine, lambda tx: tenancy.count_rows(tx, tenant))
    shown = _shown(row) if row else NOTHING | {"tenant": tenant}
    return shown | {"characters": characters, "rows": rows, "erasure": erasure and erasure_of(erasure)}


NOTHING: Row = {
    "runs": 0,
    "queued": 0,
    "running": 0,
    "keys": 0,
    "schedules": 0,
    "last_active_at": None,
    "state": "erased",
}


def unknown_tenant(tenant: str) -> NotFound:
    return NotFound(f"there is no tenant {tenant!r}; `pilothouse tenants list` shows them")


def erasure_of(row: Row) -> Row:
    """An erasure as users see it."""
    return {name: value for name, value in row.items() if name != "pseudonym_key"}


def known_in(tx: Transaction, tenant: str) -> bool:
    """Whether there is, or was, anything of a tenant."""
    return tx.fetch_one("list_tenants", tenant=tenant) is not None


def _show_in(tx: Transaction, tenant: str) -> tuple[Row | None, int, Row | None]:
    size = tx.fetch_one("bytes_of_tenant", tenant=tenant)
    row = tx.fetch_one("list_tenants", tenant=tenant)
    return row, int(size["characters"]) if size else 0, tx.fetch_one("latest_erasure", tenant=tenant)


def _shown(row: Row) -> Row:
    instants = [row[name] for name in ("created_at", "started_at", "finished_at") if row[name] is not None]
    kept = {name: row[name] for name in ("tenant", "runs", "queued", "running", "keys", "schedules")}
    state = "erasing" if row["is_erasing"] else "active"
    return kept | {"last_active_at": max(instants, default=None), "state": state}
