"""`audit`: tail and show; `events tail` follows what happens now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.session import run
from pilothouse.control import audit as verbs
from pilothouse.control.views import view
from pilothouse.store.database import Database

FOLLOW_SECONDS = 0.3

Action = Annotated[str | None, Parameter(help="Only this action, such as run.failed.")]
Tenant = Annotated[str | None, Parameter(help="Only this tenant.")]


def tail(
    *,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="How many.", validator=output.AT_LEAST_ONE)] = 20,
    action: Action = None,
    tenant: Tenant = None,
    entity: Annotated[str | None, Parameter(help="Only this run, worker or agent.")] = None,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", help="Go on with what comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """The latest records, oldest first."""

    async def work(db: Database) -> None:
        last = await verbs.last_seq(db)
        rows = await verbs.tail(db, limit=limit, action=action, tenant=tenant, entity_id=entity)
        for row in reversed(rows):
            _print(view(row), as_json=as_json)
        if follow:
            after = max(last, rows[0]["seq"]) if rows else last
            await _follow(db, after, _Wanted(action, tenant, entity), as_json=as_json)

    run(work)


def tail_events(*, action: Action = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Follow every change of state, from now on, until Ctrl-C."""

    async def work(db: Database) -> None:
        await _follow(db, await verbs.last_seq(db), _Wanted(action, tenant), as_json=as_json)

    run(work)


@dataclass(frozen=True, slots=True)
class _Wanted:
    action: str | None
    tenant: str | None
    entity: str | None = None


async def _follow(db: Database, after: int, wanted: _Wanted, *, as_json: bool) -> None:
    while True:
        rows = await verbs.follow(db, after=after, action=wanted.action, tenant=wanted.tenant)
        for row in rows:
            after = row["seq"]
            if wanted.entity in (None, row["entity_id"]):
                _print(view(row), as_json=as_json)
        if not rows:
            await asyncio.sleep(FOLLOW_SECONDS)


def show(seq: Annotated[int, Parameter(help="The record's number.")], *, as_json: AsJson = False) -> None:
    """One record."""
    row = view(run(lambda db: verbs.show(db, seq)))
    if as_json:
        output.print_json(row)
    else:
        output.console().print(output.facts(list(row.items())))


def _print(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        return output.print_json(row)
    change = f"{row['before'] or ''} → {row['after']}" if row["after"] else ""
    attempt = f".{row['attempt']}" if row["attempt"] else ""
    reason = f"  {row['reason']}" if row["reason"] else ""
    style = output.STATE_STYLES.get(row["after"] or "", "")
    out = output.console()
    return out.print(
        f"[dim]{row['seq']:>7}  {output.clock_time(row['at'])}[/dim]  [{style or 'default'}]{row['action']:<20}[/]"
        f" {row['entity']} {row['entity_id']}{attempt}  {change}  [dim]{row['principal']}[/dim]{reason}",
        soft_wrap=True,
    )
