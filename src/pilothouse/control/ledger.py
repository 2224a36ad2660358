"""The ledger: what calls may use is reserved before they go out and settled when it is known, under all limits at once.

A batch is opened before anything else of its transaction: that locks the balances it touches in one order. What the
batch then books changes the ledger and the balances together, so a balance always is the sum of its entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from pilothouse.control.coalescer import Coalescer
from pilothouse.control.instants import now
from pilothouse.domain.budgets import tell_reached
from pilothouse.domain.calendars import UTC_CALENDAR, Calendar, month_of
from pilothouse.domain.limits import (
    COUNTED,
    EACH,
    NOTHING,
    Amounts,
    Balance,
    Limit,
    Limits,
    Payer,
    Period,
    Pocket,
    Refusal,
    Unit,
    dues_of,
    free_share,
    frees_at,
    pockets_of,
    refusal_of,
    scopes_of,
)
from pilothouse.errors import LeaseLost, LimitReached, OutcomeUnknown, ReachedLimit, StoreUnavailable
from pilothouse.store.database import Database, Row, Transaction

T = TypeVar("T")

MAX_BATCH = 200

AGAIN_SECONDS = 0.5
"""How long to wait before the database is asked again what became of a booking."""

OPEN_DAYS_US = 3 * 86_400_000_000
"""Balances of days that ended longer ago are not opened by a new limit: nobody spends in them any more."""


class Hold(NamedTuple):
    """What one call may use at most. `key` is its step, `model` set for a question to a model."""

    id: str
    key: str
    attempt: int
    payer: Payer
    amounts: Amounts
    model: str | None = None


class Charge(NamedTuple):
    """What a call has used of its reservation."""

    reservation_id: str
    amounts: Amounts
    reason: str | None = None


class Adjustment(NamedTuple):
    """What was booked turned out to be more or less: the difference, in micro-dollars. `id` says of what."""

    id: str
    payer: Payer
    model: str | None
    day: str
    month: str
    microusd: int
    reason: str


class _Entry(NamedTuple):
    """One entry of the ledger to be: what it adds to settled and to reserved of all the payer's pockets."""

    kind: str
    id: str
    payer: Payer
    model: str | None
    day: str
    month: str
    change: Balance
    reason: str | None = None


class Batch:
    """The entries of one transaction. The charges are written whatever becomes of the holds, unless `own` says which of
    them are written with a hold or not at all: what those give back is room for that hold alone.

    Everything is locked in one order: the limits, the reservations that are settled, the balances. So nobody waits in a
    circle, and what was read is still true when it is written.
    """

    def __init__(
        self,
        tx: Transaction,
        holds: Sequence[Hold],
        charges: Sequence[Charge],
        calendar: Calendar,
        adjustments: Sequence[Adjustment] = (),
        own: Mapping[str, Sequence[Charge]] | None = None,
    ) -> None:
        self._tx = tx
        self._adjustments = adjustments
        self._calendar = calendar
        self._own = own or {}
        self._is_alone = tx.dialect == "sqlite"  # with the whole file, so that there is nothing to lock
        if not self._is_alone:
            tx.send("lock_limits")
        self._held = _reservations(tx, charges)
        self._now, self._epoch, limits, held_runs = _in_force(tx, holds)
        self._day = calendar.day(self._now)
        self._month = month_of(self._day)
        fenced = [hold for hold in holds if (hold.payer.run_id, hold.attempt) in held_runs]
        self._dues = {hold.id: dues_of(hold.payer, limits, self._day, self._month) for hold in fenced}
        self._balances = self._lock(holds)
        if own is None and self._balances is not None:
            _add(self._balances, self._settle_entries(charges))
        self.refusals = {hold.id: self._admit(hold) if hold.id in self._dues else _lost(hold) for hold in holds}

    def _lock(self, holds: Sequence[Hold]) -> dict[Pocket, Balance] | None:
        """Every balance that the batch may touch; None where only charges are written, which need not know them.

        Those that a limit asks for are opened first: who opens one while he holds others may meet somebody in a circle.
        """
        if self._is_alone and not holds:
            return None
        pockets = {p for hold in holds for p in pockets_of(hold.payer, self._day, self._month)}
        pockets |= {p for row in self._held.values() for p in pockets_of(payer_of(row), row["day"], row["month"])}
        pockets |= {p for each in self._adjustments for p in pockets_of(each.payer, each.day, each.month)}
        rows = [pocket._asdict() for pocket in sorted(pockets)]
        if not holds:
            self._tx.send_many("keep_balances", rows)
            return None
        _open(self._tx, {due.pocket for dues in self._dues.values() for due in dues})
        found = self._tx.fetch_many("lock_balances", rows)
        return {Pocket(row["account"], row["period"]): balance_of(row) for row in found}

    def _admit(self, hold: Hold) -> LimitReached | None:
        """Counts the hold among what is reserved, unless a limit has no room for it."""
        assert self._balances is not None
        refusal = refusal_of(hold.amounts, self._dues[hold.id], self._seen_by(hold))
        if refusal is not None:
            return self._told(refusal)
        _add(self._balances, [self._reserve_entry(hold)])
        return None

    def _seen_by(self, hold: Hold) -> Mapping[Pocket, Balance]:
        """The balances once the hold's own charges are settled. To others they are not: it may not be written."""
        assert self._balances is not None
        if hold.id not in self._own:
            return self._balances
        seen = dict(self._balances)
        _add(seen, self._settle_entries(self._own[hold.id]))
        return seen

    def free_share(self, hold: Hold) -> float:
        """How much of the tightest daily or monthly limit on money is left, the hold counted, from 1 to 0."""
        return free_share(self._dues[hold.id], self._balances or {})

    def book(self, holds: Sequence[Hold], charges: Sequence[Charge]) -> None:
        """Writes the holds that were not refused and whose step is written, and the charges whose step is."""
        settled = self._settle_entries(charges)
        entries = [*(self._reserve_entry(hold) for hold in holds), *settled]
        self._tx.send_many("insert_reservations", [self._reservation(hold) for hold in holds])
        entries += [_adjust_entry(adjustment) for adjustment in self._adjustments]
        self._tx.send_many("settle_reservations", [{"id": entry.id} for entry in settled])
        self._tx.send_many("insert_ledger", [_ledger_row(entry) for entry in entries])
        self._tx.send_many("add_to_balances", self._changes(entries))

    def _settle_entries(self, charges: Sequence[Charge]) -> list[_Entry]:
        """What is settled already stays as it is; of two charges for one reservation the first counts."""
        first = {charge.reservation_id: charge for charge in reversed(charges)}
        rows = ((charge, self._held.get(id)) for id, charge in sorted(first.items()))
        return [self._settle_entry(row, charge) for charge, row in rows if row is not None and row["state"] == "held"]

    def _reservation(self, hold: Hold) -> Row:
        return {
            **hold.payer._asdict(),
            **hold.amounts._asdict(),
            "id": hold.id,
            "key": hold.key,
            "attempt": hold.attempt,
            "model": hold.model,
            "day": self._day,
            "month": self._month,
        }

    def _reserve_entry(self, hold: Hold) -> _Entry:
        change = Balance(NOTHING, hold.amounts)
        return _Entry("reserve", hold.id, hold.payer, hold.model, self._day, self._month, change)

    def _settle_entry(self, row: Row, charge: Charge) -> _Entry:
        reserved = Amounts(row["microusd"], row["tokens"], row["actions"])
        change = Balance(charge.amounts, NOTHING.minus(reserved))
        return _Entry("settle", row["id"], payer_of(row), row["model"], row["day"], row["month"], change, charge.reason)

    def _changes(self, entries: Sequence[_Entry]) -> list[Row]:
        """What the entries add to balances, a row for each; those that there are not stay away."""
        sums: dict[Pocket, Balance] = {}
        for entry in entries:
            for pocket in pockets_of(entry.payer, entry.day, entry.month):
                if self._balances is None or pocket in self._balances:
                    sums[pocket] = sums[pocket].plus(entry.change) if pocket in sums else entry.change
        return [pocket._asdict() | _columns(change) for pocket, change in sums.items()]

    def _told(self, refusal: Refusal) -> LimitReached:
        due, balance = refusal.due, refusal.balance
        limit, pocket = due.limit, due.pocket
        assert limit.amount is not None
        reached = ReachedLimit(
            account=pocket.account,
            scope=limit.scope,
            period=pocket.period,
            unit=limit.unit,
            limit=limit.amount,
            settled=balance.settled.of(limit.unit),
            reserved=balance.reserved.of(limit.unit),
            wanted=refusal.wanted.of(limit.unit),
            is_contended=refusal.is_contended,
            frees_at=frees_at(limit.period, self._calendar, self._now),
            epoch=self._epoch,
        )
        return LimitReached(tell_reached(reached), reached)


class Ledger:
    """The ledger as the workers' gateway uses it; concurrent callers of one process share transactions."""

    def __init__(self, db: Database, calendar: Calendar) -> None:
        self._db = db
        self._calendar = calendar
        self._booking: Coalescer[Hold | Charge, float] = Coalescer(self._book, limit=MAX_BATCH, in_flight=1)
        self._giving_back = set[asyncio.Future[None]]()

    async def reserve(self, hold: Hold) -> float:
        """Reserves durably; how much of the tightest daily or monthly limit on money is left then, from 1 to 0.

        Raises LimitReached, LeaseLost where the attempt does not hold its run any more. A caller that is cancelled
        meanwhile makes no call, so what was reserved for it is given back.
        """
        asking = self._booking.put(hold)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(partial(self._give_back, hold))
            raise

    def _give_back(self, hold: Hold, asked: asyncio.Future[float]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return
        settling = asyncio.ensure_future(self.settle(Charge(hold.id, NOTHING, "cancelled before it went out")))
        self._giving_back.add(settling)
        settling.add_done_callback(self._giving_back.discard)

    async def close(self) -> None:
        """Until everything that was asked is answered."""
        await self._booking.close()
        await asyncio.gather(*self._giving_back, return_exceptions=True)

    async def free_share(self, payer: Payer) -> float:
        """How much of the tightest daily or monthly limit on money is left, from 1 to 0, with what is reserved."""
        return await self._db.read(lambda tx: look(tx, payer, self._calendar))

    async def settle(self, charge: Charge) -> None:
        await self._booking.ask(charge)

    async def _book(self, asked: Sequence[Hold | Charge]) -> Sequence[float | Exception]:
        holds = [each for each in asked if isinstance(each, Hold)]
        charges = [each for each in asked if isinstance(each, Charge)]
        answers = await self._surely(
            lambda tx: _write(tx, holds, charges, self._calendar),
            lambda tx: write_again(tx, holds, charges, self._calendar),
        )
        return [answers[each.id] if isinstance(each, Hold) else 1.0 for each in asked]

    async def _surely(self, work: Callable[[Transaction], T], again: Callable[[Transaction], T]) -> T:
        """The answer of `work`; where nobody knows whether it took place, that of `again`, however long it takes: what
        is reserved without anybody's knowledge is reserved for ever.
        """
        try:
            return await self._db.transaction(work)
        except OutcomeUnknown:
            pass
        while True:
            try:
                return await self._db.transaction(again)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)


def reserve(tx: Transaction, holds: Sequence[Hold], calendar: Calendar) -> list[float | Exception]:
    """Per hold how much of the tightest limit on money is left, or why it was not reserved."""
    answers = _write(tx, holds, (), calendar)
    return [answers[hold.id] for hold in holds]


def settle(tx: Transaction, charges: Sequence[Charge], calendar: Calendar) -> None:
    """What is settled already stays as it is."""
    _write(tx, (), charges, calendar)


def _write(
    tx: Transaction, holds: Sequence[Hold], charges: Sequence[Charge], calendar: Calendar
) -> dict[str, float | Exception]:
    """The answers by the ids of the holds."""
    batch = Batch(tx, holds, charges, calendar)
    batch.book([hold for hold in holds if batch.refusals[hold.id] is None], charges)
    return {hold.id: batch.refusals[hold.id] or batch.free_share(hold) for hold in holds}


def write_again(
    tx: Transaction, holds: Sequence[Hold], charges: Sequence[Charge], calendar: Calendar
) -> dict[str, float | Exception]:
    """Where nobody knows whether a first try took place; what that has booked is booked once.

    The first try may be under way still: alone with the limits, nobody books anything meanwhile.
    """
    tx.send("lock_limits_alone")
    booked = {row["id"] for row in tx.fetch_many("reservations_by_id", [{"id": hold.id} for hold in holds])}
    answers = _write(tx, [hold for hold in holds if hold.id not in booked], charges, calendar)
    return answers | dict.fromkeys(booked, 1.0)


def look(tx: Transaction, payer: Payer, calendar: Calendar) -> float:
    """How much of the tightest daily or monthly limit on money is left, read without locking anything."""
    at, _, limits, _ = _in_force(tx, [Hold("", "", 0, payer, NOTHING)])
    day, month = calendar.day(at), calendar.month(at)
    dues = dues_of(payer, limits, day, month)
    rows = tx.fetch_many("balances_of", [pocket._asdict() for pocket in pockets_of(payer, day, month)])
    return free_share(dues, {Pocket(row["account"], row["period"]): balance_of(row) for row in rows})


def _in_force(tx: Transaction, holds: Sequence[Hold]) -> tuple[int, int, Limits, set[tuple[str, int]]]:
    """The instant, the latest change of any limit, all limits that may apply, and which attempts hold their runs."""
    if not holds:
        return 0, 0, {}, set()
    scopes = sorted({scope for hold in holds for scope in scopes_of(hold.payer)})
    attempts = sorted({(hold.payer.run_id, hold.attempt) for hold in holds})
    asked: list[Row] = [{"scope": scope, "run_id": None, "attempt": None} for scope in scopes]
    asked += [{"scope": None, "run_id": run_id, "attempt": attempt} for run_id, attempt in attempts]
    rows = tx.fetch_many("limits_in_force", asked)
    found = [
        Limit(row["scope"], Period(row["period"]), Unit(row["unit"]), row["amount"]) for row in rows if row["scope"]
    ]
    limits = {(limit.scope, limit.period, limit.unit): limit for limit in found}
    own = {(row["run_id"], row["attempt"]) for row in rows if row["holds_run"]}
    return rows[0]["now"], rows[0]["epoch"], limits, own


def _add(balances: dict[Pocket, Balance], entries: Iterable[_Entry]) -> None:
    """To those that there are."""
    for entry in entries:
        for pocket in pockets_of(entry.payer, entry.day, entry.month):
            if pocket in balances:
                balances[pocket] = balances[pocket].plus(entry.change)


def _lost(hold: Hold) -> LeaseLost:
    return LeaseLost(f"attempt {hold.payer.run_id}.{hold.attempt} does not hold its run any more; it reserved nothing")


def _open(tx: Transaction, pockets: Iterable[Pocket]) -> None:
    """Opens those of the balances that nobody has opened yet."""
    rows = [p._asdict() | {"run_id": _name(p) if p.period == Period.RUN else None} for p in sorted(pockets)]
    tx.send_many("open_balances", rows)


def open_under(tx: Transaction, limit: Limit) -> None:
    """Opens the balances that a new limit asks for and that have entries by now, alone with the limits.

    So a balance that is opened later, by who spends first, begins with nothing, and nobody has to look for what else is
    being spent at that instant.
    """
    if limit.amount is None or limit.unit not in COUNTED:
        return
    kind, _, name = limit.scope.partition(":")
    if limit.period == Period.RUN:
        if kind == "run" and name != EACH:
            _open(tx, [Pocket(limit.scope, Period.RUN)])
        else:
            tx.send("open_run_balances", agent=limit.scope.partition("@")[2] or None)
        return
    since = now(tx) - OPEN_DAYS_US
    tx.send(
        "open_kind_balances",
        kind=kind,
        name=None if name in ("", EACH) else name,
        by_day=int(limit.period == Period.DAY),
        since_day=UTC_CALENDAR.day(since),
        since_month=UTC_CALENDAR.month(since),
    )


def adjust(tx: Transaction, adjustments: Sequence[Adjustment], calendar: Calendar) -> None:
    """Books differences; what was booked before stays as it is."""
    Batch(tx, (), (), calendar, adjustments).book((), ())


def _adjust_entry(adjustment: Adjustment) -> _Entry:
    id, payer, model, day, month, microusd, reason = adjustment
    return _Entry("adjust", id, payer, model, day, month, Balance(Amounts(microusd)), reason)


def _reservations(tx: Transaction, charges: Sequence[Charge]) -> Mapping[str, Row]:
    rows = tx.fetch_many("lock_reservations", [{"id": id} for id in sorted({each.reservation_id for each in charges})])
    return {row["id"]: row for row in rows}


def payer_of(row: Row) -> Payer:
    """Who a row of reservations or of the ledger is booked for."""
    return Payer(row["run_id"], row["tenant"], row["agent"], row["user_id"], row["platform"], row["tool"])


def balance_of(row: Row) -> Balance:
    """What a row of balances, or a sum of the ledger, says."""
    return Balance(
        Amounts(row["settled_microusd"], row["settled_tokens"], row["settled_actions"]),
        Amounts(row["reserved_microusd"], row["reserved_tokens"], row["reserved_actions"]),
    )


def _columns(balance: Balance) -> Row:
    settled, reserved = balance
    return {
        "settled_microusd": settled.microusd,
        "settled_tokens": settled.tokens,
        "settled_actions": settled.actions,
        "reserved_microusd": reserved.microusd,
        "reserved_tokens": reserved.tokens,
        "reserved_actions": reserved.actions,
    }


def _name(pocket: Pocket) -> str:
    return pocket.account.partition(":")[2]


def _ledger_row(entry: _Entry) -> Row:
    return {
        **entry.payer._asdict(),
        **_columns(entry.change),
        "kind": entry.kind,
        "reservation_id": entry.id,
        "model": entry.model,
        "day": entry.day,
        "month": entry.month,
        "reason": entry.reason,
    }
