"""Short ways to reserve, settle and set limits, and what the ledger says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilothouse.clock import new_id
from pilothouse.control import attempts, checks, ledger, limits
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.bookings import Booking
from pilothouse.control.ledger import Charge, Hold
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.store.database import Database, Row
from tests.control.steps import checkpoint

EVERY_BALANCE = "SELECT * FROM balances"
MONEY_INVARIANTS = ("check_balances", "check_reservations")


def payer_of(run: ClaimedRun, *, platform: str | None = None, tool: str | None = None) -> Payer:
    return Payer(run.run_id, run.tenant, run.agent, run.user_id, platform, tool)


def hold_for(run: ClaimedRun, microusd: int = 0, tokens: int = 0, actions: int = 0, *, key: str = "s") -> Hold:
    return Hold(new_id(), key, run.attempt, payer_of(run), Amounts(microusd, tokens, actions))


def reserve(db: Database, *holds: Hold) -> list[float | Exception]:
    return db.transaction_blocking(lambda tx: ledger.reserve(tx, holds, UTC_CALENDAR))


def settle(db: Database, *charges: Charge) -> None:
    db.transaction_blocking(lambda tx: ledger.settle(tx, charges, UTC_CALENDAR))


def book(db: Database, run: ClaimedRun, *holds: Hold, charges: Sequence[Charge] = ()) -> list[Exception | None]:
    """Each hold in a checkpoint of its own, the charges in that of the first."""
    written = [
        checkpoint(run, new_id())._replace(booking=Booking(hold, charges=tuple(charges) if place == 0 else ()))
        for place, hold in enumerate(holds)
    ]
    return db.transaction_blocking(lambda tx: attempts.write_checkpoints(tx, written))


def limit_to(
    db: Database,
    amount: int | None,
    scope: str = "global",
    *,
    period: Period = Period.DAY,
    unit: Unit = Unit.MICROUSD,
) -> None:
    asyncio.run(limits.set_limit(db, Limit(scope, period, unit, amount), principal="test"))


def balances(db: Database) -> dict[tuple[str, str], Row]:
    rows = db.examine(lambda tx: tx.fetch_all(EVERY_BALANCE))
    return {(row["account"], row["period"]): row for row in rows}


def broken_money(db: Database) -> list[Row]:
    """What the ledger does not agree with itself about."""
    wanted = [each for each in checks.INVARIANTS if each.statement in MONEY_INVARIANTS]
    assert len(wanted) == len(MONEY_INVARIANTS)
    return db.read_blocking(lambda tx: [row for each in wanted for row in tx.fetch_all(each.statement, limit=20)])
