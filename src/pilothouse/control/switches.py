"""Kill switches: operators trip and reset them, and prove that what they stop has stopped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pilothouse.clock import SystemClock
from pilothouse.control import audit, waits
from pilothouse.control.runs import WAKE_RUNS
from pilothouse.control.switchboard import LOOK_SECONDS, WAKE_SWITCHES
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.switches import Scope, SwitchMode, parse_scope
from pilothouse.errors import NotFound
from pilothouse.store.database import Database, Row, Transaction

EFFECT_WINDOW_US = 3_600_000_000
"""How long before a trip the last effect is looked for."""

_KNOWN = {
    "agent": "is_agent_known",
    "version": "is_version_known",
    "tenant": "is_tenant_known",
    "tool": "is_tool_known",
}

# --- what operators do -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TripOrder:
    """A switch that somebody wants tripped."""

    scope: str
    mode: SwitchMode = SwitchMode.HOLD
    reason: str = ""


async def trip_switch(db: Database, order: TripOrder, *, principal: str) -> Row:
    """Trips a switch, or changes the one that is tripped; `note` says where nothing of its name is known yet.

    Raises InvalidInput for a scope that is none.
    """
    scope = parse_scope(order.scope)
    row = await db.transaction(lambda tx: _trip(tx, order, principal))
    db.notify(WAKE_SWITCHES)
    return row | {"note": await db.read(lambda tx: _note(tx, scope))}


def _trip(tx: Transaction, order: TripOrder, principal: str) -> Row:
    epoch = _next_epoch(tx)
    was = tx.fetch_one("switch_by_scope", scope=order.scope)
    row = tx.fetch_one(
        "trip_switch", scope=order.scope, mode=order.mode, reason=order.reason, epoch=epoch, tripped_by=principal
    )
    assert row is not None
    _record(tx, "switch.tripped", row, principal, before=was["mode"] if was else None, after=order.mode)
    return row


def _next_epoch(tx: Transaction) -> int:
    row = tx.fetch_one("next_switch_epoch")
    assert row is not None
    return int(row["epoch"])


def _note(tx: Transaction, scope: Scope) -> str | None:
    """A stop is never refused for being early; but a mistyped one stops nothing."""
    if scope.kind == "lane" and scope.name not in set(LANE_ORDER):
        return f"there is no lane {scope.name!r}; the lanes are {', '.join(LANE_ORDER)}"
    statement = _KNOWN.get(scope.kind)
    if statement is None or tx.fetch_one(statement, name=scope.name) is not None:
        return None
    if scope.kind == "tool":
        return f"no tool named {scope.name!r} was called in the last day; the switch is tripped all the same"
    return f"no {scope.kind} {scope.name!r} is registered; the switch is tripped all the same"


async def reset_switch(db: Database, scope: str, *, principal: str, reason: str = "") -> Row:
    """Resets a switch, and wakes the runs that wait for it. Raises InvalidInput, NotFound where it is not tripped."""
    parse_scope(scope)
    row = await db.transaction(lambda tx: _reset(tx, scope, principal, reason))
    db.notify(WAKE_SWITCHES)
    db.notify(WAKE_RUNS)
    return row


def _reset(tx: Transaction, scope: str, principal: str, reason: str) -> Row:
    _next_epoch(tx)
    row = tx.fetch_one("reset_switch", scope=scope)
    if row is None:
        raise NotFound(f"switch {scope} is not tripped; `pilothouse switch list` shows those that are")
    waits.lock_runs(tx, [held["id"] for held in tx.fetch_all("runs_held_by_switch", scope=scope)])
    row = row | {"released": tx.execute("wake_held_runs", scope=scope)}
    tx.send("release_switch_waits", scope=scope)
    _record(tx, "switch.reset", row | {"reason": reason}, principal, before=row["mode"], after=None)
    return row


def _record(tx: Transaction, action: str, row: Row, principal: str, *, before: str | None, after: str | None) -> None:
    reason = row["reason"] or None
    entry = audit.entry(action, "switch", row["scope"], principal=principal, before=before, after=after, reason=reason)
    audit.record(tx, [entry])


# --- what people see ---------------------------------------------------------------------------


async def list_switches(db: Database) -> list[Row]:
    """The tripped switches, the latest first, each with the live workers that do not act by it yet (`silent`)."""
    return await db.read(list_in)


def list_in(tx: Transaction) -> list[Row]:
    """The same within a transaction."""
    return [_shown(tx, row) for row in tx.fetch_all("list_switches")]


async def show_switch(db: Database, scope: str) -> Row:
    """One tripped switch. Raises InvalidInput, NotFound where it is not tripped."""
    parse_scope(scope)

    def work(tx: Transaction) -> Row:
        row = tx.fetch_one("switch_by_scope", scope=scope)
        if row is None:
            raise NotFound(f"switch {scope} is not tripped; `pilothouse switch list` shows those that are")
        return _shown(tx, row)

    return await db.read(work)


def _shown(tx: Transaction, row: Row) -> Row:
    return row | {"silent": [worker["id"] for worker in tx.fetch_all("silent_workers", epoch=row["epoch"])]}


async def count_live_workers(db: Database) -> tuple[int, int]:
    """How many workers are live, and how many of them were started with ENGINE_ENABLED=false."""
    row = await db.read(lambda tx: tx.fetch_one("live_worker_counts"))
    assert row is not None
    return int(row["live"]), int(row["disabled"])


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a stop. `silent`: live workers that have not acknowledged it. `before` and `after`: the last
    effect that began before the trip, and the first after it, as far as they have ended or were intended.
    """

    silent: list[Row]
    seconds: float
    before: Row | None
    after: Row | None


async def prove_stop(db: Database, switch: Row, *, deadline_seconds: float) -> Proof:
    """Waits until every live worker acts by the switch, at most so long; then looks what it has stopped."""
    clock = SystemClock()
    began = clock.monotonic()
    silent = await _silent(db, switch["epoch"])
    while silent and clock.monotonic() - began < deadline_seconds:
        await asyncio.sleep(LOOK_SECONDS / 2)
        silent = await _silent(db, switch["epoch"])
    seconds = clock.monotonic() - began
    before, after = await look_around(db, switch)
    return Proof(silent, seconds, before, after)


async def _silent(db: Database, epoch: int) -> list[Row]:
    return await db.read(lambda tx: tx.fetch_all("silent_workers", epoch=epoch))


async def look_around(db: Database, switch: Row) -> tuple[Row | None, Row | None]:
    """`effects_around` of a tripped switch, as they are now."""
    return await db.read(lambda tx: effects_around(tx, switch))


def effects_around(tx: Transaction, switch: Row) -> tuple[Row | None, Row | None]:
    """The last effect that a switch covers before its trip, in the hour before it, and the first one after it."""
    scope = parse_scope(switch["scope"])
    chosen: dict[str, Any] = dict.fromkeys(("tenant", "agent", "lane", "version", "tool"))
    if scope.name:
        chosen[scope.kind] = scope.name
    at = switch["tripped_at"]
    before = tx.fetch_one("last_effect_before", tripped_at=at, earliest=at - EFFECT_WINDOW_US, **chosen)
    return before, tx.fetch_one("first_effect_after", tripped_at=at, **chosen)
