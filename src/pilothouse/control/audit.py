"""The audit: who did what to which row, when and why, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypedDict, Unpack

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


PLATFORM = ""
"""The tenant of records that speak of no tenant's rows: no tenant has this name."""

MOST_KNOWN = 10_000

SEARCHED = 20_000
"""How many records a page of a search walks over at most."""

NO_FACTS: AuditRow = {
    "tenant": PLATFORM,
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


@dataclass(frozen=True, slots=True)
class Search:
    """Which records; None: any."""

    action: str | None = None
    principal: str | None = None
    tenant: str | None = None
    entity_id: str | None = None


class Found(NamedTuple):
    """Records, newest first. `next` is what the following page is before, None on the last; where the page is not full
    because enough was walked over, `is_cut`.
    """

    rows: list[Row]
    next: int | None
    is_cut: bool


async def search(db: Database, wanted: Search, *, before: int | None = None, limit: int = 50) -> Found:
    """A page of the audit. It walks over a bounded number of records, however many there are."""
    return await db.read(lambda tx: _search(tx, wanted, before=before, limit=limit))


def _search(tx: Transaction, wanted: Search, *, before: int | None, limit: int) -> Found:
    start = end_in(tx) + 1 if before is None else before
    asked = {**asdict(wanted), "before": start, "limit": limit + 1}
    if asked.pop("entity_id") is not None:
        rows, oldest = tx.fetch_all("search_audit_of_entity", **asked, entity_id=wanted.entity_id), 0
    else:
        oldest = start - SEARCHED
        rows = tx.fetch_all("search_audit", **asked, oldest=oldest)
    if len(rows) > limit:
        return Found(rows[:limit], rows[limit - 1]["seq"], False)
    began = tx.fetch_one("audit_begin")
    is_cut = began is not None and oldest > began["seq"]
    return Found(rows, oldest if is_cut else None, is_cut)


class Horizon:
    """Up to which number the audit is final: whatever commits later gets a higher one.

    On PostgreSQL a number is taken before its transaction commits. So the last number is noted first, the transactions
    that are writing to the audit second, and the record is final up to there once all of those have ended.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seq = 0
        self._noted: tuple[int, frozenset[str]] | None = None

    async def advance(self) -> int:
        """The last final number that can be known now; read the records in a transaction that begins after this."""
        self._seq = await self._db.read(self._look)
        return self._seq

    def _look(self, tx: Transaction) -> int:
        seq, writers = self._noted or (end_in(tx), _writers(tx))
        if writers & _writers(tx):
            self._noted = (seq, writers)
            return self._seq
        self._noted = None
        return seq


def end_in(tx: Transaction) -> int:
    """The last number that was given to a record."""
    row = tx.fetch_one("audit_end")
    return int(row["seq"]) if row else 0


def _writers(tx: Transaction) -> frozenset[str]:
    return frozenset(row["writer"] for row in tx.fetch_all("audit_writers"))


class Follower:
    """Reads on through the record from after number `after`, oldest first, none skipped."""

    def __init__(self, db: Database, *, after: int, action: str | None = None, tenant: str | None = None) -> None:
        self._db = db
        self._horizon = Horizon(db)
        self._after = after
        self._wanted = {"action": action, "tenant": tenant}

    @property
    def seq(self) -> int:
        """Up to which number the records have been read."""
        return self._after

    async def next(self, *, limit: int = 500) -> list[Row]:
        """The records that became final since the last call, at most `limit`."""
        last = await self._horizon.advance()
        rows = await self._db.read(
            lambda tx: tx.fetch_all("list_audit", after=self._after, last=last, limit=limit, **self._wanted)
        )
        self._after = rows[-1]["seq"] if len(rows) == limit else max(self._after, last)
        return rows


class Agents:
    """Which agents records speak of. What a run's agent is never changes, so it is asked for once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[str, str] = {}

    async def of(self, rows: Sequence[Row]) -> list[str | None]:
        """The agent of each record, None where it speaks of none, or of a run that is gone."""
        runs = [_run_of(row) for row in rows]
        unknown = {run for run in runs if run and run not in self._known}
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
            unknown = {run for run in runs if run}
        if unknown:
            asked = [{"id": run} for run in sorted(unknown)]
            found = await self._db.read(lambda tx: tx.fetch_many("agents_of_runs", asked))
            self._known |= {row["id"]: row["agent"] for row in found}
        return [
            row["entity_id"] if row["entity"] == "agent" else self._known.get(run or "")
            for row, run in zip(rows, runs, strict=True)
        ]


def _run_of(row: Row) -> str | None:
    run: str | None = row["entity_id"] if row["entity"] == "run" else row["run_id"]
    return run


async def last_seq(db: Database) -> int:
    """The last number that was given to a record."""
    return await db.read(end_in)


async def show(db: Database, seq: int) -> Row:
    """One record. Raises NotFound."""
    row = await db.read(lambda tx: tx.fetch_one("audit_by_seq", seq=seq))
    if row is None:
        raise NotFound(f"there is no audit record {seq}; `pilothouse audit tail` lists the latest")
    return row
