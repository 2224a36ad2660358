"""`tenants`: list, show, export, erase."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import open_session, prepare_schema, principal, run
from pilothouse.clock import SystemClock
from pilothouse.config import load_settings
from pilothouse.control import erasures, exports
from pilothouse.control import tenants as verbs
from pilothouse.control.views import view
from pilothouse.errors import ConfigError
from pilothouse.store.database import Database

POLL_SECONDS = 0.2

Tenant = Annotated[str, Parameter(help="The tenant's name.")]


def list_tenants(*, as_json: AsJson = False) -> None:
    """Every tenant: its runs, its keys and schedules, and when it was last active."""
    rows = [view(row) for row in run(verbs.list_tenants)]
    if as_json:
        return output.print_json(rows)
    numbers = ("runs", "queued", "running", "keys", "schedules")
    made = output.table(("tenant", "fold"), *((name, "right") for name in numbers), "last active", "state")
    for row in rows:
        counts = [f"{row[name]:,}" for name in numbers]
        made.add_row(row["tenant"], *counts, output.clock_time(row["last_active_at"]), row["state"])
    return output.print_table(made, empty="no tenants; the first run makes one", spare=("schedules", "keys"))


def show(tenant: Tenant, *, as_json: AsJson = False) -> None:
    """One tenant: what there is of it, table by table, and what became of an erasure."""
    row = _shown(run(lambda db: verbs.show_tenant(db, tenant)))
    if as_json:
        return output.print_json(row)
    pairs: list[tuple[str, Any]] = [
        ("state", row["state"]),
        *((name, f"{row[name]:,}") for name in ("runs", "queued", "running", "keys", "schedules")),
        ("last active", output.clock_time(row["last_active_at"])),
        ("payloads", output.size(row["characters"])),
        ("rows", "\n".join(f"{count:>10,}  {table}" for table, count in row["rows"].items())),
        ("erasure", _told(row["erasure"]) if row["erasure"] else None),
    ]
    output.console().print(output.facts(pairs))
    return None


def export(
    tenant: Tenant,
    *,
    to: Annotated[Path, Parameter(name=["--output", "--to"], help="The file; compressed where it ends in .gz.")],
    as_json: AsJson = False,
) -> None:
    """Write every row of a tenant, and its large payloads, as JSON lines, while everything goes on."""
    with open_session(load_settings()) as db:
        prepare_schema(db, "expect")
        done = exports.export_tenant(db, tenant, to)
    if as_json:
        output.print_json({"file": str(to), "tenant": tenant, "rows": done.rows})
    else:
        told = f"{done.total:,} rows of {len(done.rows)} tables of tenant {tenant} in {to}"
        output.console().print(told, soft_wrap=True)


def erase(
    tenant: Tenant,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask for its name.")] = False,
    cancel: Annotated[bool, Parameter(negative="", help="Cancel its runs that have not ended.")] = False,
    reason: Annotated[str, Parameter(help="Why; it stays in the audit, so name nobody.")] = "",
    wait: Annotated[float, Parameter(help="Seconds to wait for its running runs to stop.")] = 60.0,
    as_json: AsJson = False,
) -> int:
    """Erase everything of a tenant, for good; exits with 1 while runs of it have yet to stop."""
    if not yes:
        _ask(tenant)

    async def work(db: Database) -> dict[str, Any]:
        begun = await erasures.begin(db, tenant, principal=principal(), cancel=cancel, reason=reason)
        return await _carry_on(db, begun["id"], wait)

    erasure = view(run(work))
    if as_json:
        output.print_json(erasure)
    else:
        output.console().print(f"tenant {tenant}: {_told(erasure)}", soft_wrap=True)
    return 0 if erasure["state"] == "done" else 1


def _ask(tenant: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(f"erasing tenant {tenant!r} cannot be undone; say that you mean it: --yes")
    print(f"Everything of tenant {tenant} will be gone for good; `pilothouse tenants export` keeps a copy.")
    if input("Type the tenant's name to go on: ").strip() != tenant:
        raise ConfigError("that is not its name; nothing was erased")


async def _carry_on(db: Database, erasure_id: str, wait_seconds: float) -> dict[str, Any]:
    """Until it is done, or has waited long enough for runs to stop."""
    clock = SystemClock()
    deadline = clock.monotonic() + wait_seconds
    erasure = await erasures.carry_on(db, erasure_id)
    while erasure["state"] != "done" and clock.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        erasure = await erasures.carry_on(db, erasure_id)
    return erasure


def _told(erasure: dict[str, Any]) -> str:
    counts = f"{erasure['runs']:,} runs and the names in {erasure['records']:,} audit records"
    if erasure["state"] == "done":
        return f"erased {counts}, done at {output.clock_time(erasure['finished_at'])}"
    return f"erased {counts} so far; it goes on once its runs have stopped, by the scheduler or by this command again"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return view(row) | {"erasure": view(row["erasure"]) if row["erasure"] else None}
