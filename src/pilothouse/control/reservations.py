"""Reservations that nobody has settled: their attempt has ended, so that it takes a person, or a provider's export, to
say what their calls have cost. Until then they count as spent.
"""

from __future__ import annotations

from typing import NamedTuple

from pilothouse.control import audit, ledger
from pilothouse.control.ledger import Charge
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import MOST, Amounts, Unit, show_amount
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

UNSETTLED_SHOWN = 1000


class Outcome(NamedTuple):
    """What a call has used, as somebody says. Tokens and actions None: as much as was reserved."""

    microusd: int
    tokens: int | None = None
    actions: int | None = None


async def list_unsettled(
    db: Database, *, tenant: str | None = None, run_id: str | None = None, limit: int = UNSETTLED_SHOWN
) -> list[Row]:
    """Reservations that are still held though their attempt has ended, the oldest first."""
    return await db.read(lambda tx: unsettled_in(tx, tenant=tenant, run_id=run_id, limit=limit))


def unsettled_in(
    tx: Transaction, *, tenant: str | None = None, run_id: str | None = None, limit: int = UNSETTLED_SHOWN
) -> list[Row]:
    return tx.fetch_all("list_unsettled", tenant=tenant, run_id=run_id, limit=limit)


async def settle_reservation(
    db: Database, id: str, outcome: Outcome, calendar: Calendar, *, principal: str, reason: str = ""
) -> Row:
    """Settles a reservation by what an operator knows; the reservation as it is then.

    Raises NotFound, Conflict where it is settled already or its attempt still runs, InvalidInput below nothing.
    """
    if not all(0 <= (used or 0) <= MOST for used in outcome):
        told = f"a call uses 0 or more, and at most {MOST}"
        raise InvalidInput(told, [FieldError("amount", told)])
    return await db.transaction(lambda tx: _settle(tx, id, outcome, calendar, principal=principal, reason=reason))


def _settle(tx: Transaction, id: str, outcome: Outcome, calendar: Calendar, *, principal: str, reason: str) -> Row:
    tx.send("lock_limits_alone")  # nobody else settles it between the look and the entry
    row = _settleable(tx, id)
    tokens = row["tokens"] if outcome.tokens is None else outcome.tokens
    actions = row["actions"] if outcome.actions is None else outcome.actions
    told = reason or f"settled by {principal}"
    ledger.settle(tx, [Charge(id, Amounts(outcome.microusd, tokens, actions), told)], calendar)
    tx.send_many("forget_reservations", [{"id": id}])
    record(tx, row, outcome.microusd, principal=principal, reason=reason)
    return row | {"state": "settled"}


def _settleable(tx: Transaction, id: str) -> Row:
    row = tx.fetch_one("reservation_by_id", id=id)
    if row is None:
        raise NotFound(
            f"there is no reservation {id}; `pilothouse budget unsettled` lists those that wait for somebody"
        )
    if row["state"] == "settled":
        raise Conflict(f"reservation {id} is settled already; what a call came to is said once")
    if row["is_held_by_run"]:
        raise Conflict(f"attempt {row['run_id']}.{row['attempt']} still runs; it settles reservation {id} itself")
    return row


def record(tx: Transaction, row: Row, microusd: int, *, principal: str, reason: str) -> None:
    """Who says what a reservation came to."""
    entry = audit.entry(
        "reservation.settled",
        "reservation",
        row["id"],
        principal=principal,
        tenant=row["tenant"],
        before=show_amount(row["microusd"], Unit.MICROUSD),
        after=show_amount(microusd, Unit.MICROUSD),
        reason=reason or None,
        run_id=row["run_id"],
    )
    audit.record(tx, [entry])
