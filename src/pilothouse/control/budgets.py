"""Budgets: how every limit stands now, for each account that it is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse.control.instants import now
from pilothouse.control.ledger import balance_of
from pilothouse.control.views import view
from pilothouse.domain.budgets import Standing
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import (
    COUNTED,
    EACH,
    GLOBAL,
    Balance,
    Limit,
    Period,
    Pocket,
    Unit,
    run_scopes,
)
from pilothouse.store.database import Database, Row, Transaction

LIVE_RUNS_SHOWN = 200

USERS_SHOWN = 200

LIVE_RUNS_LOOKED_AT = 2_000
"""Of those that wait; those that run are never more than there are slots."""

Key = tuple[str, Period, Unit]


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit as it stands now, and where it was set: `source` is settings or operator."""

    standing: Standing
    scope: str
    source: str
    set_by: str
    set_at: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """All limits at one instant."""

    now: int
    items: tuple[Budget, ...]


# --- how limits stand --------------------------------------------------------------------------------


async def list_budgets(db: Database, calendar: Calendar, *, with_runs: bool = False) -> Budgets:
    """Every limit with each account that it is for, those first of which the largest share is used; of users those who
    have used the most.

    A limit for each of a kind that nobody has used anything of stands for itself. `with_runs` adds the runs under way.
    """
    return await db.read(lambda tx: _list(tx, calendar, with_runs))


def _list(tx: Transaction, calendar: Calendar, with_runs: bool) -> Budgets:
    items = budgets_in(tx, calendar)
    if with_runs:
        items += _live_runs(tx, limit_rows(tx))
    return Budgets(now(tx), tuple(sorted(items, key=_by_use)))


def budgets_in(tx: Transaction, calendar: Calendar, *, with_users: bool = True) -> list[Budget]:
    """Every limit with each account that it is for, without those of single runs; of users those who have used the
    most, or none.
    """
    at = now(tx)
    day, month = calendar.day(at), calendar.month(at)
    known = limit_rows(tx)
    found = {Pocket(row["account"], row["period"]): balance_of(row) for row in _in_periods(tx, day, month, with_users)}
    asked = [(row, pocket) for row in known.values() for pocket in _pockets(row, known, found, day, month)]
    balances = found | _sums(tx, {p for _, p in asked} - found.keys())
    items = [budget_of(row, pocket, balances.get(pocket, Balance()), calendar) for row, pocket in asked]
    return items + _run_rules(known)


def _in_periods(tx: Transaction, day: str, month: str, with_users: bool) -> list[Row]:
    rows = tx.fetch_all("balances_in_periods", day=day, month=month)
    return rows + tx.fetch_all("balances_of_users", day=day, month=month, limit=USERS_SHOWN) if with_users else rows


def _by_use(budget: Budget) -> tuple[bool, float, str, str]:
    standing = budget.standing
    return standing.limit is None, -standing.used_share, standing.account, standing.period


def limit_rows(tx: Transaction) -> dict[Key, Row]:
    """Every limit, by what it is for."""
    return {(row["scope"], Period(row["period"]), Unit(row["unit"])): row for row in tx.fetch_all("list_limits")}


def _pockets(row: Row, known: Mapping[Key, Row], found: Iterable[Pocket], day: str, month: str) -> list[Pocket]:
    """The accounts that a limit of a day or a month is for now."""
    scope, period = row["scope"], Period(row["period"])
    if period is Period.RUN:
        return []
    name = day if period is Period.DAY else month
    if not scope.endswith(f":{EACH}"):
        return [Pocket(scope, name)]
    own = [
        pocket
        for pocket in found
        if pocket.period == name
        and pocket.account.startswith(scope.removesuffix(EACH))
        and (pocket.account, period, Unit(row["unit"])) not in known
    ]
    return own or [Pocket(scope, name)]


def budget_of(row: Row, pocket: Pocket, balance: Balance, calendar: Calendar) -> Budget:
    """A limit of a day or a month for one account."""
    unit = Unit(row["unit"])
    begins_at, ends_at = calendar.bounds(pocket.period)
    settled, reserved = balance.settled.of(unit), balance.reserved.of(unit)
    standing = Standing(pocket.account, pocket.period, unit, row["amount"], settled, reserved, begins_at, ends_at)
    return set_where(row, standing)


def set_where(row: Row, standing: Standing) -> Budget:
    """The limit of a row, as it stands."""
    return Budget(standing, row["scope"], row["source"], row["set_by"], row["set_at"])


def _run_rules(known: Mapping[Key, Row]) -> list[Budget]:
    """The limits that each run of a kind has for itself."""
    return [
        set_where(row, Standing(scope, period, unit, row["amount"]))
        for (scope, period, unit), row in known.items()
        if period is Period.RUN and not (scope.startswith("run:") and scope != f"run:{EACH}")
    ]


def _live_runs(tx: Transaction, known: Mapping[Key, Row]) -> list[Budget]:
    budgets = []
    for row in tx.fetch_all("balances_of_live_runs", limit=LIVE_RUNS_SHOWN, window=LIVE_RUNS_LOOKED_AT):
        balance = balance_of(row)
        for unit in COUNTED:
            limit = closest_of_run(known, row["run_id"], row["agent"], unit)
            if limit is not None:
                settled, reserved = balance.settled.of(unit), balance.reserved.of(unit)
                standing = Standing(
                    row["account"], Period.RUN, unit, limit["amount"], settled, reserved, row["started_at"]
                )
                budgets.append(set_where(limit, standing))
    return budgets


def closest_of_run(known: Mapping[Key, Row], run_id: str, agent: str, unit: Unit) -> Row | None:
    """The limit that a run has for itself."""
    scopes = run_scopes(run_id, agent)
    return next((row for scope in scopes if (row := known.get((scope, Period.RUN, unit)))), None)


def closest(known: Mapping[Key, Row], account: str, period: str, unit: Unit) -> Row | None:
    """The limit of an account for a day or a month."""
    kind = Period.MONTH if len(period) == len("2026-11") else Period.DAY
    scopes = (account, f"{account.partition(':')[0]}:{EACH}")
    return next((row for scope in scopes if (row := known.get((scope, kind, unit)))), None)


def _sums(tx: Transaction, pockets: Iterable[Pocket]) -> dict[Pocket, Balance]:
    """What the ledger holds of accounts for which no balance is kept."""
    rows = [_sum_of(pocket) for pocket in sorted(pockets) if not pocket.account.endswith(f":{EACH}")]
    return {Pocket(row["account"], row["period"]): balance_of(row) for row in tx.fetch_many("ledger_sums", rows)}


def _sum_of(pocket: Pocket) -> Row:
    kind, _, name = pocket.account.partition(":")
    month = pocket.period[: len("2026-11")]
    day = None if pocket.period == month else pocket.period
    return pocket._asdict() | {"kind": kind, "name": name, "month": month, "day": day}


def balances_of(tx: Transaction, pockets: Iterable[Pocket]) -> dict[Pocket, Balance]:
    """What accounts have used in days and months, whether a balance is kept of them or not."""
    wanted = set(pockets)
    found = kept_balances(tx, wanted)
    return found | _sums(tx, wanted - found.keys())


def period_of(tx: Transaction, period: Period, calendar: Calendar) -> str:
    """The day or the month that it is now, as balances name it."""
    at = now(tx)
    return calendar.day(at) if period is Period.DAY else calendar.month(at)


def kept_balances(tx: Transaction, pockets: Iterable[Pocket]) -> dict[Pocket, Balance]:
    """The balances that are kept of accounts; one that no limit has asked for yet is left out."""
    rows = tx.fetch_many("balances_of", [pocket._asdict() for pocket in sorted(set(pockets))])
    return {Pocket(row["account"], row["period"]): balance_of(row) for row in rows}


async def over_limit(db: Database, limit: Limit, calendar: Calendar) -> list[Standing]:
    """The accounts that have used more than a limit of theirs already."""
    found = await list_budgets(db, calendar, with_runs=True)
    standings = [each.standing for each in found.items if each.scope == limit.scope and _is_of(each, limit)]
    return [each for each in standings if each.limit is not None and each.used > each.limit]


def _is_of(budget: Budget, limit: Limit) -> bool:
    is_run, period = budget.standing.period == Period.RUN, budget.standing.period
    kind = Period.RUN if is_run else Period.MONTH if len(period) == len("2026-11") else Period.DAY
    return (kind, budget.standing.unit) == (limit.period, limit.unit)


def public(budget: Budget, at: int, degrade_at: float) -> dict[str, Any]:
    """A limit as users see it, at the instant `at`."""
    standing = budget.standing
    rate = standing.burn_per_hour(at)
    told = {
        "account": standing.account,
        "scope": budget.scope,
        "period": standing.period,
        "unit": standing.unit,
        "limit": standing.limit,
        "settled": standing.settled,
        "reserved": standing.reserved,
        "free": standing.free,
        "used_share": round(standing.used_share, 6),
        "burn_per_hour": None if rate is None else round(rate, 3),
        "exhausted_at": standing.exhausted_at(at),
        "level": standing.level(degrade_at),
        "source": budget.source,
        "set_by": budget.set_by,
        "set_at": budget.set_at,
    }
    return view(told)


# --- all runs together -------------------------------------------------------------------------------


def overview_in(tx: Transaction, calendar: Calendar) -> tuple[list[Standing], int]:
    """What all runs together have spent today and this month, and how many runs wait for room under a limit."""
    at = now(tx)
    known, standings = limit_rows(tx), []
    for period, name in ((Period.DAY, calendar.day(at)), (Period.MONTH, calendar.month(at))):
        pocket, limit = Pocket(GLOBAL, name), known.get((GLOBAL, period, Unit.MICROUSD))
        balance = balances_of(tx, [pocket]).get(pocket, Balance())
        amount = None if limit is None else limit["amount"]
        used = balance.settled.microusd, balance.reserved.microusd
        standings.append(Standing(GLOBAL, name, Unit.MICROUSD, amount, *used))
    blocked = tx.fetch_one("count_blocked_runs")
    return standings, int(blocked["runs"]) if blocked else 0
