"""Two tenants with something in every table, and a way to look at all that a database holds."""

from __future__ import annotations

from typing import Any

from pilothouse.control import attempts, blobs, ledger
from pilothouse.control.attempts import ClaimedRun, LogLine
from pilothouse.control.ledger import Charge, Hold
from pilothouse.control.limits import set_limit
from pilothouse.control.signals import send_signal
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.store import archive, tenancy
from pilothouse.store.archive import Table
from pilothouse.store.database import Database, Row, Transaction
from tests.control.steps import card, checkpoint, claim, ended, register, settle, start_worker, submit, write

OWN, OTHER = "acme", "globex"
SHARED = {"text": "z" * blobs.LARGE}

ALLOWED: dict[tuple[str, str], Any] = {
    ("model_calls", "outcome"): "answered",
    ("tool_calls", "outcome"): "succeeded",
    ("tool_calls", "called_by"): "code",
    ("effects", "state"): "succeeded",
    ("incidents", "state"): "closed",
    ("incidents", "severity"): "minor",
    ("approvals", "state"): "expired",
    ("approvals", "billing"): "none",
    ("approvals", "on_deadline"): "wait",
    ("approvals", "quorum"): 1,
    ("approvals", "kind"): "tool",
    ("approvals", "reviewer"): "operator",
    ("schedules", "catch_up"): "one",
    ("schedules", "overlap"): "skip",
    ("schedules", "cron"): "0 0 1 1 *",
    ("schedules", "timezone"): "UTC",
    ("alerts", "state"): "resolved",
    ("alerts", "severity"): "info",
    ("api_keys", "role"): "viewer",
}
"""What columns may hold that do not take any value. One line for a new one."""

WRITTEN_BY_RUNS = {
    "runs",
    "attempts",
    "checkpoints",
    "signals",
    "run_logs",
    "blobs",
    "blob_references",
    "audit",
    "waits",
}
"""Tables that hold something once runs have lived."""

WRITTEN_BY_MONEY = {"limits", "balances", "reservations", "ledger"}
CALENDAR = Calendar()


async def live(db: Database, tenant: str) -> list[str]:
    """Runs of a tenant that have ended, with all that runs leave behind; and a row of it in every other table."""
    worker = start_worker(db)
    ids = [
        submit(db, tenant=tenant),
        submit(db, input=SHARED, tenant=tenant),
        submit(db, input=own(tenant), tenant=tenant),
    ]
    claimed = claim(db, worker)
    write(db, *(checkpoint(run, "s", {"of": tenant}) for run in claimed))
    await send_signal(db, ids[0], "go", {"of": tenant}, principal=f"key:{tenant}")
    await spend(db, tenant, claimed[0])
    line = LogLine(ids[0], 1, 0, "info", f"of {tenant}", "{}")
    await db.transaction(lambda tx: attempts.write_logs(tx, [line]))
    settle(db, *(ended(run) for run in claimed), principal=f"key:{tenant}")
    db.administer(lambda tx: fill_rest(tx, tenant, ids[0]))
    return ids


async def spend(db: Database, tenant: str, run: ClaimedRun) -> None:
    """Two reservations, one settled, under limits of the tenant, of a user of several tenants, of the run, of all."""
    for scope in (f"tenant:{tenant}", "user:ada", f"agent:{run.agent}", "global"):
        await set_limit(db, Limit(scope, Period.DAY, Unit.MICROUSD, 1_000_000), principal="cli:ops")
    await set_limit(db, Limit(f"run:{run.run_id}", Period.RUN, Unit.MICROUSD, 1_000_000), principal="cli:ops")
    payer = Payer(run.run_id, tenant, run.agent, "ada", "mail", "send")
    holds = [Hold(f"{run.run_id}-{n}", f"of {tenant}", run.attempt, payer, Amounts(100, 10, 1)) for n in range(2)]
    await db.transaction(lambda tx: ledger.reserve(tx, holds, CALENDAR))
    charge = Charge(holds[0].id, Amounts(70, 7, 1), f"of {tenant}")
    await db.transaction(lambda tx: ledger.settle(tx, [charge], CALENDAR))


def own(tenant: str) -> dict[str, str]:
    return {"text": f"of {tenant}" + "y" * blobs.LARGE}


def prepare(db: Database) -> None:
    register(db, card("echo"))


def fill_rest(tx: Transaction, tenant: str, run_id: str) -> None:
    """A row of the tenant in every table in which its runs have left none."""
    for table in archive.tables(tx):
        if table.name in tenancy.WAYS and table.name not in WRITTEN_BY_RUNS | WRITTEN_BY_MONEY:
            row = {column: value_of(table, column, tenant, run_id) for column in table.columns}
            archive.write_rows(tx, table, list(row), [list(row.values())])


def value_of(table: Table, column: str, tenant: str, run_id: str) -> Any:
    named = {
        "tenant": tenant,
        "run_id": run_id,
        "user_id": "ada",
        "approval_id": f"id-{tenant}",
        "key": "s",
        "last_run_id": None,
        "agent": "echo",
    }
    if (table.name, column) in ALLOWED:
        return ALLOWED[table.name, column]
    if column in named:
        return named[column]
    kind = table.columns[column].lower()
    return f"{column}-{tenant}" if "text" in kind or "char" in kind else 0


def dump(db: Database) -> dict[str, list[Row]]:
    """Every row of every table."""

    def look(tx: Transaction) -> dict[str, list[Row]]:
        return {
            table.name: [dict(zip(table.columns, row, strict=True)) for row in archive.read_rows(tx, table)]
            for table in archive.tables(tx)
        }

    return db.examine(look)


def mentions(rows: dict[str, list[Row]], *names: str) -> set[tuple[str, str]]:
    """In which columns any of these names is found."""
    return {
        (table, column)
        for table, found in rows.items()
        for row in found
        for column, value in row.items()
        if any(name in str(value) for name in names)
    }
