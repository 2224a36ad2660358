"""Bookings: what a step's checkpoint changes in the ledger and among the effects, in its own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pilothouse.control import effects, ledger
from pilothouse.control.calls import ModelCall
from pilothouse.control.effects import EffectEnd, Intent
from pilothouse.control.ledger import Charge, Hold
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import Amounts
from pilothouse.errors import LeaseLost, LimitReached
from pilothouse.store.database import Transaction


class Booking(NamedTuple):
    """Before a call: what it may use, and what it is about to do. After it: what it has used, and what became of it."""

    hold: Hold | None = None
    intent: Intent | None = None
    charges: tuple[Charge, ...] = ()
    ends: tuple[EffectEnd, ...] = ()


NO_BOOKING = Booking()


def model_charges(calls: Sequence[ModelCall]) -> tuple[Charge, ...]:
    """What questions to models have used of what was reserved for them."""
    return tuple(
        Charge(call.reservation_id, Amounts(call.cost_microusd, call.usage.total))
        for call in calls
        if call.reservation_id is not None
    )


class Bookings:
    """The bookings of one transaction. Opened first, which locks the balances; written once the steps are."""

    def __init__(self, tx: Transaction, bookings: Sequence[Booking], calendar: Calendar) -> None:
        self._tx = tx
        holds = [each.hold for each in bookings if each.hold is not None]
        charges = [charge for each in bookings for charge in each.charges]
        own = {each.hold.id: each.charges for each in bookings if each.hold is not None and each.charges}
        self._batch = ledger.Batch(tx, holds, charges, calendar, own=own) if holds or charges else None

    def refusal(self, booking: Booking) -> LimitReached | LeaseLost | None:
        """Why the step cannot be written: a limit has no room for it, or its attempt does not hold its run any more."""
        if self._batch is None or booking.hold is None:
            return None
        return self._batch.refusals[booking.hold.id]

    def write(self, bookings: Sequence[Booking]) -> None:
        """Those whose steps were written."""
        effects.write(
            self._tx,
            [each.intent for each in bookings if each.intent is not None],
            [end for each in bookings for end in each.ends],
        )
        if self._batch is not None:
            holds = [each.hold for each in bookings if each.hold is not None]
            self._batch.book(holds, [charge for each in bookings for charge in each.charges])
