"""The audit: who did what to which row, when and why, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict, Unpack

from pilothouse.errors import NotFound
from pilothouse.store.database import Database, Row, Transaction

AuditRow = Mapping[str, object]


class Facts(TypedDict, total=False):
    """What a record may say beyond its action: `before` and `after` are states."""

    tenant: str
    before: str | None
    after: str | None
    reason: str | None
    run_id: str | None
    attempt: int | None


NO_FACTS: AuditRow = {
    "tenant": "default",
    "before": None,
    "after": None,
    "reason": None,
    "run_id": None,
    "attempt": None,
}


def entry(action: str, entity: str, entity_id: str, *, principal: str, **facts: Unpack[Facts]) -> AuditRow:
    """One record; its instant and number are given by the database."""
    return {
        **NO_FACTS,
        "action": action,
        "entity": entity,
        "entity_id": entity_id,
        "principal": principal,
        **facts,
    }


class _Entries:
    """The records of one transaction, in the order of what happened in it."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []

    def write(self, tx: Transaction) -> None:
        if self.rows:
            tx.send_many("insert_audit", self.rows)


def record(tx: Transaction, entries: Iterable[AuditRow]) -> None:
    """Adds to the audit; all records of a transaction are written at its end."""
    tx.closing(_Entries).rows.extend(entries)


async def tail(
    db: Database,
    *,
    limit: int = 50,
    before: int | None = None,
    action: str | None = None,
    tenant: str | None = None,
    entity_id: str | None = None,
) -> list[Row]:
    """The newest records first; `before` is the last number of the page before."""
    return await db.read(
        lambda tx: tx.fetch_all(
            "tail_audit", limit=limit, before=before, action=action, tenant=tenant, entity_id=entity_id
        )
    )


async def follow(
    db: Database, *, after: int, limit: int = 500, action: str | None = None, tenant: str | None = None
) -> list[Row]:
    """The records that come after number `after`, oldest first, none skipped."""
    return await db.read(lambda tx: tx.fetch_all("list_audit", after=after, limit=limit, action=action, tenant=tenant))


async def last_seq(db: Database) -> int:
    row = await db.read(lambda tx: tx.fetch_one("last_audit_seq"))
    return int(row["seq"]) if row else 0


async def show(db: Database, seq: int) -> Row:
    """One record. Raises NotFound."""
    row = await db.read(lambda tx: tx.fetch_one("audit_by_seq", seq=seq))
    if row is None:
        raise NotFound(f"there is no audit record {seq}; `pilothouse audit tail` lists the latest")
    return row
