"""Erasures: everything of a tenant leaves, in batches, whoever carries on and however often that is cut off.

Rows are deleted. Two kinds stay without their names, because others count on them: entries of the ledger, so that what
is spent by an agent or by all still adds up, and records of the audit, whose seals must hold.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from pilothouse.clock import new_id
from pilothouse.control import audit, cancels, retention, seals, tenants, waits
from pilothouse.control.runs import WAKE_CANCEL
from pilothouse.domain.seals import tombstones_text
from pilothouse.errors import Conflict, NotFound
from pilothouse.store.database import Database, Row, Transaction

Place = TypeVar("Place", int, str)

BATCH = 500
ROUNDS = 10
"""So often one turn looks for what came in meanwhile; the next turn goes on."""

UNDER_WAY_AT_ONCE = 10

BY_RUN = (*retention.TABLES_OF_RUNS, "blob_references", "blobs")
"""Tables whose rows leave with the runs that they belong to."""

BY_TENANT = {
    "approval_votes": "erase_votes",
    "approvals": "erase_approvals",
    "corrections": "erase_corrections",
    "incident_effects": "erase_incident_effects",
    "cases": "erase_cases",
    "incidents": "erase_incidents",
    "effects": "erase_effects",
    "memories": "erase_memories",
    "model_answers": "erase_model_answers",
    "schedules": "erase_schedules",
    "alerts": "erase_alerts",
    "api_keys": "erase_keys",
}
"""Tables whose rows name their tenant, each with the statement that deletes some; in the order in which they leave."""

RENAMED = ("ledger", "reservations", "balances", "limits", "audit")
"""Tables of which something stays: without names, or because it is made anew from such."""


async def begin(db: Database, tenant: str, *, principal: str, cancel: bool = False, reason: str = "") -> Row:
    """Begins to erase a tenant: its keys open nothing any more, its schedules rest. One under way is gone on with.

    With `cancel` its runs that have not ended are cancelled. Raises NotFound, Conflict where there are some.
    """
    erasure_id, pseudonym_key = new_id(), secrets.token_hex(32)

    def work(tx: Transaction) -> Row:
        latest = tx.fetch_one("latest_erasure", tenant=tenant)
        if latest is not None and (latest["state"] == "under_way" or not tenants.known_in(tx, tenant)):
            return latest
        _expect_erasable(tx, tenant, cancel=cancel)
        names = {"id": erasure_id, "tenant": tenant, "requested_by": principal, "pseudonym_key": pseudonym_key}
        tx.execute("insert_erasure", reason=reason or None, **names)
        tx.execute("shut_keys", tenant=tenant)
        tx.execute("shut_schedules", tenant=tenant)
        told = f"erasure {erasure_id}" + (f": {reason}" if reason else "")
        audit.record(tx, [audit.entry("tenant.erasing", "tenant", tenant, principal=principal, reason=told)])
        return _erasure(tx, erasure_id)

    return tenants.erasure_of(await db.transaction(work))


def _expect_erasable(tx: Transaction, tenant: str, *, cancel: bool) -> None:
    if not tenants.known_in(tx, tenant):
        raise tenants.unknown_tenant(tenant)
    count = _open_runs(tx, tenant)
    if count and not cancel:
        raise Conflict(f"{count} runs of tenant {tenant!r} have not ended; wait for them, or cancel them: --cancel")


async def carry_on(db: Database, erasure_id: str) -> Row:
    """Goes on with an erasure as far as it can be done now. It is `under_way` still where runs have yet to stop."""
    for _ in range(ROUNDS):
        if await db.transaction(partial(_finish, erasure_id=erasure_id)):
            break
        await _repeat(db, partial(_cancel_some, erasure_id=erasure_id))
        db.notify(WAKE_CANCEL)
        if await db.read(lambda tx: _open_runs(tx, _erasure(tx, erasure_id)["tenant"])):
            break
        await _erase_all(db, erasure_id)
    return tenants.erasure_of(await db.read(lambda tx: _erasure(tx, erasure_id)))


async def _erase_all(db: Database, erasure_id: str) -> None:
    """Each kind of thing in batches of its own; runs first, because the others may be theirs."""
    await _page(db, partial(_erase_runs, erasure_id=erasure_id), "")
    for statement in BY_TENANT.values():
        await _repeat(db, partial(_erase_rows, erasure_id=erasure_id, statement=statement))
    await db.transaction(partial(_erase_accounts, erasure_id=erasure_id))
    await _page(db, partial(_rename_reservations, erasure_id=erasure_id), "")
    await _page(db, partial(_rename_entries, erasure_id=erasure_id), 0)
    await _page(db, partial(_erase_records, erasure_id=erasure_id), 0)


async def carry_on_all(db: Database) -> None:
    """The chore: goes on with every erasure that is under way."""
    rows = await db.read(lambda tx: tx.fetch_all("erasures_under_way", limit=UNDER_WAY_AT_ONCE))
    for row in rows:
        await carry_on(db, row["id"])


class _Paged(Protocol[Place]):
    def __call__(self, tx: Transaction, *, after: Place) -> Place | None: ...


async def _page(db: Database, work: _Paged[Place], start: Place) -> None:
    """Batch after batch: each begins where the one before has ended, until there is none."""
    after: Place | None = start
    while after is not None:
        after = await db.transaction(partial(work, after=after))


async def _repeat(db: Database, work: Callable[[Transaction], bool]) -> None:
    while await db.transaction(work):
        pass


def _erasure(tx: Transaction, erasure_id: str) -> Row:
    row = tx.fetch_one("erasure_by_id", id=erasure_id)
    if row is None:
        raise NotFound(f"there is no erasure {erasure_id}")
    return row


def _lock(tx: Transaction, erasure_id: str) -> Row | None:
    """The erasure, for this transaction alone; None once it is done: what the tenant has from then on is new."""
    row = tx.fetch_one("lock_erasure", id=erasure_id)
    return row if row is not None and row["state"] == "under_way" else None


def _open_runs(tx: Transaction, tenant: str) -> int:
    row = tx.fetch_one("open_runs", tenant=tenant)
    return int(row["found"]) if row else 0


def _cancel_some(tx: Transaction, erasure_id: str) -> bool:
    erasure = _lock(tx, erasure_id)
    if erasure is None:
        return False
    found = tx.fetch_all("uncancelled_runs", tenant=erasure["tenant"], limit=BATCH)
    for row in found:
        cancels.cancel_lineage(tx, row["id"], principal=erasure["requested_by"], reason="its tenant is erased")
    return bool(found)


def _erase_runs(tx: Transaction, erasure_id: str, *, after: str) -> str | None:
    erasure = _lock(tx, erasure_id)
    found = tx.fetch_all("runs_to_erase", tenant=erasure["tenant"], after=after, limit=BATCH) if erasure else []
    if not found:
        return None
    tx.send("lock_limits_alone")
    waits.lock_runs(tx, (row["id"] for row in found))
    ended = tx.fetch_many("ended_runs", [{"id": row["id"]} for row in found])
    ids = [{"id": row["id"]} for row in ended]
    hashes = sorted(row["hash"] for row in tx.fetch_many("blobs_of_runs", ids))
    retention.delete_runs(tx, ended)
    tx.send_many("erase_run_limits", ids)
    _drop_balances(tx, (f"run:{row['id']}" for row in ended))
    _erase_blobs(tx, hashes)
    tx.execute("count_erased", id=erasure_id, runs=len(ended), records=0)
    return str(found[-1]["id"])


def _erase_blobs(tx: Transaction, hashes: Sequence[str]) -> None:
    rows = [{"hash": hash} for hash in hashes]
    tx.send_many("lock_blobs", rows)
    tx.send_many("erase_blobs", rows)


def _erase_rows(tx: Transaction, erasure_id: str, statement: str) -> bool:
    erasure = _lock(tx, erasure_id)
    return erasure is not None and tx.execute(statement, tenant=erasure["tenant"], limit=BATCH) > 0


def _drop_balances(tx: Transaction, accounts: Iterable[str]) -> None:
    """A balance is made anew from the ledger when a limit next asks for it. Nobody spends while limits are locked."""
    tx.send_many("drop_balances", [{"account": account} for account in sorted(set(accounts))])


# --- what stays without names ------------------------------------------------------------------


def _erase_accounts(tx: Transaction, erasure_id: str) -> None:
    erasure = _lock(tx, erasure_id)
    if erasure is not None:
        tx.send("lock_limits_alone")
        tx.execute("erase_tenant_limits", tenant=erasure["tenant"])
        _drop_balances(tx, [f"tenant:{erasure['tenant']}"])


def _rename_reservations(tx: Transaction, erasure_id: str, *, after: str) -> str | None:
    """Gives reservations, and the entries of the ledger that book them, names that nobody can trace back."""
    erasure = _lock(tx, erasure_id)
    if erasure is None:
        return None
    tx.send("lock_limits_alone")
    rows = tx.fetch_all("reservations_of_tenant", tenant=erasure["tenant"], after=after, limit=BATCH)
    entries = tx.fetch_many("entries_of_reservations", [{"id": row["id"], "run_id": row["run_id"]} for row in rows])
    tx.send_many(
        "rename_reservations",
        [
            _renamed(row, erasure) | {"id": row["id"], "new_id": _pseudonym(erasure, "reservation", row["id"])}
            for row in rows
        ],
    )
    _rename(tx, entries, erasure)
    return str(rows[-1]["id"]) if rows else None


def _rename_entries(tx: Transaction, erasure_id: str, *, after: int) -> int | None:
    """The same for what else is in the ledger, such as corrections."""
    erasure = _lock(tx, erasure_id)
    if erasure is None:
        return None
    tx.send("lock_limits_alone")
    rows = tx.fetch_all("ledger_of_tenant", tenant=erasure["tenant"], after=after, limit=BATCH)
    _rename(tx, rows, erasure)
    return int(rows[-1]["seq"]) if rows else None


def _rename(tx: Transaction, entries: Sequence[Row], erasure: Row) -> None:
    tx.send_many(
        "rename_ledger",
        [
            _renamed(row, erasure)
            | {"seq": row["seq"], "reservation_id": _pseudonym(erasure, "reservation", row["reservation_id"])}
            for row in entries
        ],
    )
    users = {f"user:{row['user_id']}" for row in entries if row["user_id"] is not None}
    _drop_balances(tx, users | {f"run:{row['run_id']}" for row in entries})


def _renamed(row: Row, erasure: Row) -> Row:
    user_id = row["user_id"]
    return {
        "tenant": _pseudonym(erasure, "tenant", erasure["tenant"]),
        "run_id": _pseudonym(erasure, "run", row["run_id"]),
        "user_id": None if user_id is None else _pseudonym(erasure, "user", user_id),
    }


def _pseudonym(erasure: Row, kind: str, name: str) -> str:
    key = str(erasure["pseudonym_key"])
    digest = hmac.new(key.encode(), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()
    return f"erased-{digest[:32]}"


def _erase_records(tx: Transaction, erasure_id: str, *, after: int) -> int | None:
    """Takes what records say about the tenant out of them; their tombstones keep the seals whole."""
    erasure = _lock(tx, erasure_id)
    if erasure is None:
        return None
    records = tx.fetch_all("audit_of_tenant", tenant=erasure["tenant"], after=after, limit=BATCH)
    if not records:
        return None
    text, last = tombstones_text(records), int(records[-1]["seq"])
    span = {"first_seq": records[0]["seq"], "last_seq": last}
    tx.execute("insert_tombstones", id=new_id(), erasure_id=erasure_id, tombstones=text, **span)
    tx.send_many("erase_records", [{"seq": record["seq"]} for record in records])
    principal = erasure["requested_by"]
    audit.record(tx, [seals.voucher(erasure["tenant"], text, len(records), principal=principal)])
    tx.execute("count_erased", id=erasure_id, runs=0, records=len(records))
    return last


# --- the end -----------------------------------------------------------------------------------


def _finish(tx: Transaction, erasure_id: str) -> bool:
    """Says that it is done, once there is nothing left."""
    erasure = _lock(tx, erasure_id)
    if erasure is None:
        return True
    tenant = erasure["tenant"]
    if tx.fetch_all("rest_of_tenant", tenant=tenant):
        return False
    _forget_counters(tx, tenant)
    tx.execute("finish_erasure", id=erasure_id)
    told = f"erasure {erasure_id}: {erasure['runs']} runs, {erasure['records']} audit records"
    principal = erasure["requested_by"]
    audit.record(tx, [audit.entry("tenant.erased", "tenant", tenant, principal=principal, reason=told)])
    return True


def _forget_counters(tx: Transaction, tenant: str) -> None:
    """What others have counted meanwhile is counted on."""
    left: dict[tuple[str, str], int] = {}
    for row in tx.fetch_all("forget_counters", tenant=tenant):
        left[row["name"], row["lane"]] = left.get((row["name"], row["lane"]), 0) + row["value"]
    rows = [
        {"name": name, "agent": "", "lane": lane, "label": tenant, "shard": 0, "value": value}
        for (name, lane), value in sorted(left.items())
        if value
    ]
    if rows:
        tx.send_many("add_counters", rows)
