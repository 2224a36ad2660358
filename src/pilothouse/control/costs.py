"""Costs: reports of what the ledger holds, and the two ways to mend it: newer prices, and a provider's own figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pilothouse.control import audit, ledger, runs, waits
from pilothouse.control.instants import now
from pilothouse.control.ledger import Adjustment, Charge, payer_of
from pilothouse.control.reservations import UNSETTLED_SHOWN, record, unsettled_in
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.costs import Compared, CostLine, Figure, Place, compare, share_of, spread
from pilothouse.domain.limits import Amounts, Unit, show_amount
from pilothouse.domain.prices import Usage
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction

PAGE = 500

PriceOf = Callable[[str, Usage, int], int | None]
"""What a model's usage costs in micro-dollars, at an instant; None where nobody knows."""


class Span(NamedTuple):
    """Days from the first to the last, such as 2026-11-01 and 2026-11-30."""

    first: str
    last: str


# --- reports -----------------------------------------------------------------------------------------


async def report(
    db: Database, by: str, calendar: Calendar, *, span: Span | None = None, tenant: str | None = None
) -> tuple[Span, list[CostLine]]:
    """What was used on some days (this month's unless given), by `by`, one of GROUPS; the dearest first.

    Raises InvalidInput where the last day is before the first.
    """
    if span is not None and span.last < span.first:
        told = f"the first day, {span.first}, is after the last, {span.last}"
        raise InvalidInput(told, [FieldError("from", told)])
    return await db.read(lambda tx: _report(tx, by, span or this_month(tx, calendar), tenant))


def this_month(tx: Transaction, calendar: Calendar) -> Span:
    at = now(tx)
    return Span(f"{calendar.month(at)}-01", calendar.day(at))


def _report(tx: Transaction, by: str, span: Span, tenant: str | None) -> tuple[Span, list[CostLine]]:
    rows = tx.fetch_all("cost_report", by=by, tenant=tenant, **span._asdict())
    lines = [CostLine(**row) for row in rows]
    return span, sorted(lines, key=lambda line: line.name or "") if by == "day" else lines


def public(line: CostLine, lines: Sequence[CostLine], by: str) -> dict[str, Any]:
    """A line as users see it."""
    return {
        by: line.name,
        "calls": line.calls,
        "tokens": line.tokens,
        "actions": line.actions,
        "cost_microusd": line.microusd,
        "share": round(share_of(line, lines), 6),
        "reserved_microusd": line.reserved_microusd,
        "runs": line.runs,
        "succeeded_runs": line.succeeded,
        "microusd_per_success": line.microusd_per_success,
    }


# --- newer prices ------------------------------------------------------------------------------------


class Repriced(NamedTuple):
    """How many calls were looked at and how many cost something else now; what they cost then and now; the models
    whose price nobody knows.
    """

    calls: int = 0
    changed: int = 0
    before_microusd: int = 0
    after_microusd: int = 0
    unknown: frozenset[str] = frozenset()

    def plus(self, other: Repriced) -> Repriced:
        sums = [mine + its for mine, its in zip(self[:4], other[:4], strict=True)]
        return Repriced(sums[0], sums[1], sums[2], sums[3], self.unknown | other.unknown)


async def reprice(
    db: Database, since: int, price_of: PriceOf, calendar: Calendar, *, principal: str, dry_run: bool = False
) -> Repriced:
    """Books what answered questions since an instant cost more or less by `price_of` than the ledger says.

    Doing it again books nothing more. Nothing that was booked is changed; the records of the calls stay as they are.
    """
    total, after = Repriced(), ("", "", 0, 0)
    while True:
        page = _Page(since, after, price_of, calendar, principal)
        found, last = await (db.read(page.look) if dry_run else db.transaction(page.book))
        total = total.plus(found)
        if last is None:
            break
        after = last
    db.notify(runs.WAKE_RUNS)
    return total


Last = tuple[str, str, int, int]


class _Page(NamedTuple):
    """Some of the calls, those after `after`."""

    since: int
    after: Last
    price_of: PriceOf
    calendar: Calendar
    principal: str

    def look(self, tx: Transaction) -> tuple[Repriced, Last | None]:
        return self._differences(tx)[1:]

    def book(self, tx: Transaction) -> tuple[Repriced, Last | None]:
        tx.send("lock_limits_alone")  # so that two who do it at once do not book the same differences
        differences, found, last = self._differences(tx)
        if differences:
            _adjust(tx, [_repriced(row, change) for row, change in differences], self.calendar)
            told = f"{found.changed} calls: {_money(found.before_microusd)} before, {_money(found.after_microusd)} now"
            audit.record(tx, [audit.entry("ledger.repriced", "ledger", "calls", principal=self.principal, reason=told)])
        return found, last

    def _differences(self, tx: Transaction) -> tuple[list[tuple[Row, int]], Repriced, Last | None]:
        names = dict(zip(("run_id", "key", "attempt", "number"), self.after, strict=True))
        rows = tx.fetch_all("answered_calls", since=self.since, limit=PAGE, **names)
        differences, found = [], Repriced()
        for row in rows:
            cost = self.price_of(row["model"], _usage(row), row["started_at"])
            booked = int(row["booked_microusd"] or 0)
            if cost is None:
                found = found.plus(Repriced(1, unknown=frozenset({row["model"]})))
                continue
            found = found.plus(Repriced(1, int(cost != booked), booked, cost))
            if cost != booked:
                differences.append((row, cost - booked))
        return differences, found, _place(rows[-1]) if len(rows) == PAGE else None


def _place(row: Row) -> Last:
    return row["run_id"], row["key"], row["attempt"], row["number"]


def _usage(row: Row) -> Usage:
    names = ("input", "cache_read", "cache_write", "output", "reasoning")
    return Usage(*(int(row[f"{name}_tokens"]) for name in names))


def _repriced(row: Row, microusd: int) -> Adjustment:
    return Adjustment(
        row["reservation_id"], payer_of(row), row["model"], row["day"], row["month"], microusd, "repriced"
    )


def _adjust(tx: Transaction, adjustments: Sequence[Adjustment], calendar: Calendar) -> None:
    """Books differences. Where less was spent than thought, whoever waits for room looks again."""
    ledger.adjust(tx, adjustments, calendar)
    if any(each.microusd < 0 for each in adjustments):
        waits.wake(tx, tx.fetch_all("release_limit_waits", prefix=""))


# --- a provider's figures ----------------------------------------------------------------------------


class Booked(NamedTuple):
    """What a comparison has led to: reservations that were settled by it, and the difference that was booked beside."""

    settled: int = 0
    settled_microusd: int = 0
    adjusted_microusd: int = 0

    def plus(self, other: Booked) -> Booked:
        return Booked(*(mine + its for mine, its in zip(self, other, strict=True)))


async def reconcile(db: Database, theirs: Mapping[Place, Figure], provider: str | None) -> list[Compared]:
    """The ledger beside a provider's figures, day by day and model by model."""
    return await db.read(lambda tx: _compare(tx, theirs, provider))


def compared_view(row: Compared) -> dict[str, Any]:
    """A day and a model as users see them."""
    return {
        "day": row.day,
        "model": row.model,
        "ours": list(row.names),
        "ours_microusd": row.ours.microusd,
        "held_microusd": row.held_microusd,
        "theirs_microusd": row.theirs.microusd,
        "difference_microusd": row.difference_microusd,
        "ours_tokens": row.ours.tokens,
        "theirs_tokens": row.theirs.tokens,
    }


def booked_view(booked: Booked, left: Sequence[Compared]) -> dict[str, Any]:
    """What was booked as users see it, and the rows that were left alone."""
    return booked._asdict() | {"left": [{"day": row.day, "model": row.model} for row in left]}


def _compare(tx: Transaction, theirs: Mapping[Place, Figure], provider: str | None) -> list[Compared]:
    days = sorted({day for day, _ in theirs})
    if not days:
        return []
    rows = tx.fetch_all("costs_by_model", first=days[0], last=days[-1])
    ours = {(row["day"], row["model"]): Figure(row["microusd"], row["tokens"]) for row in rows}
    held = {(row["day"], row["model"]): row["reserved_microusd"] for row in rows}
    return compare(ours, theirs, held, provider)


async def book(
    db: Database, compared: Sequence[Compared], calendar: Calendar, *, principal: str
) -> tuple[Booked, list[Compared]]:
    """Makes the ledger say what the provider says, where both know of a model and its day is over.

    Reservations whose attempt has ended are settled by it first; the rest is booked as differences, for those who asked
    the model on that day, by what it has cost each. Booking the same figures again books nothing. Also returns the rows
    that were left alone.
    """
    total, left = Booked(), []
    for row in compared:
        booked = await db.transaction(lambda tx, row=row: _book(tx, row, calendar, principal))  # type: ignore[misc]
        if booked is None:
            left.append(row)
        else:
            total = total.plus(booked)
    db.notify(runs.WAKE_RUNS)
    return total, left


def _book(tx: Transaction, row: Compared, calendar: Calendar, principal: str) -> Booked | None:
    """None where the row cannot be booked: no cost on one side, a day that goes on, or calls that are under way."""
    tx.send("lock_limits_alone")  # nobody books anything between the look and the entries
    if row.difference_microusd is None or row.day >= calendar.day(now(tx)):
        return None
    open_by_model = _unsettled(tx, row)
    held = tx.fetch_all("costs_by_model", first=row.day, last=row.day)
    ours = [each for each in held if each["model"] in row.names]
    reserved = sum(each["reserved_microusd"] for each in ours)
    if reserved != sum(each["microusd"] for each in open_by_model):
        return None
    difference = (row.theirs.microusd or 0) - sum(each["microusd"] for each in ours)
    told = f"reconciled with the provider's figures for {row.model or 'all models'} on {row.day}"
    settled = _settle_by(tx, open_by_model, difference, calendar, principal=principal, reason=told)
    rest = difference - settled
    if rest:
        _adjust(tx, _borne(tx, row, rest, told), calendar)
        entry = audit.entry("ledger.reconciled", "ledger", f"{row.day} {row.model}", principal=principal, reason=told)
        audit.record(tx, [{**entry, "after": _money(rest)}])
    return Booked(len(open_by_model), settled, rest)


def _unsettled(tx: Transaction, row: Compared) -> list[Row]:
    found = unsettled_in(tx, limit=100 * UNSETTLED_SHOWN)
    return [each for each in found if each["day"] == row.day and each["model"] in row.names]


def _settle_by(
    tx: Transaction, held: Sequence[Row], difference: int, calendar: Calendar, *, principal: str, reason: str
) -> int:
    """Settles reservations by what the provider counts more than the ledger; how much of that they take up."""
    if not held:
        return 0
    reserved = [int(row["microusd"]) for row in held]
    parts = spread(max(0, min(difference, sum(reserved))), reserved)
    charges = []
    for row, used in zip(held, parts, strict=True):
        tokens = row["tokens"] * used // row["microusd"] if row["microusd"] else row["tokens"]
        charges.append(Charge(row["id"], Amounts(used, int(tokens), row["actions"]), reason))
        record(tx, row, used, principal=principal, reason=reason)
    ledger.settle(tx, charges, calendar)
    tx.send_many("forget_reservations", [{"id": row["id"]} for row in held])
    return sum(parts)


def _borne(tx: Transaction, row: Compared, amount: int, reason: str) -> list[Adjustment]:
    """The difference in parts, one for each who has asked the models on that day."""
    month = row.day[: len("2026-11")]
    payers = [
        each for name in row.names for each in tx.fetch_all("costs_by_payer", day=row.day, month=month, model=name)
    ]
    weights = [max(0, each["microusd"]) for each in payers]
    weights = weights if any(weights) else [each["tokens"] for each in payers]
    id = f"reconcile:{row.day}:{row.model}"
    parts = zip(payers, spread(amount, weights), strict=True)
    return [Adjustment(id, payer_of(each), each["model"], row.day, month, part, reason) for each, part in parts if part]


def _money(microusd: int) -> str:
    return f"-{show_amount(-microusd, Unit.MICROUSD)}" if microusd < 0 else show_amount(microusd, Unit.MICROUSD)
