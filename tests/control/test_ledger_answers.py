"""Reservations whose answer gets lost, or whose caller is gone before it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pilothouse.control import ledger
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.ledger import Charge, Ledger
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import Amounts
from pilothouse.errors import LeaseLost, LimitReached, OutcomeUnknown, StoreUnavailable
from pilothouse.store.database import Database, T, Work
from tests.control.money import broken_money, hold_for, limit_to
from tests.control.steps import claim, submit

HELD = "SELECT id, state FROM reservations ORDER BY id"


@pytest.fixture
def run(db: Database, worker: str) -> ClaimedRun:
    submit(db)
    (claimed,) = claim(db, worker)
    limit_to(db, 100)
    return claimed


def lose_answers(
    db: Database, monkeypatch: pytest.MonkeyPatch, *, of: int, takes_place: bool, then_away: int = 0
) -> list[int]:
    """The first `of` transactions have an unknown outcome; the next `then_away` find the database away."""
    tell, asked = db.transaction, list[int]()

    async def transaction(work: Work[T], *, is_patient: bool = False) -> T:
        asked.append(len(asked))
        if len(asked) > of + then_away:
            return await tell(work, is_patient=is_patient)
        if len(asked) > of:
            raise StoreUnavailable("away")
        if takes_place:
            await tell(work, is_patient=is_patient)
        raise OutcomeUnknown("whether it took place is unknown")

    monkeypatch.setattr(db, "transaction", transaction)
    monkeypatch.setattr(ledger, "AGAIN_SECONDS", 0.001)
    return asked


def reservations(db: Database) -> dict[str, str]:
    return {row["id"]: row["state"] for row in db.examine(lambda tx: tx.fetch_all(HELD))}


@pytest.mark.parametrize("takes_place", [True, False])
@pytest.mark.parametrize(("lost", "away"), [(1, 0), (2, 0), (1, 3)])
async def test_a_reservation_with_a_lost_answer_is_booked_once(
    db: Database, run: ClaimedRun, monkeypatch: pytest.MonkeyPatch, lost: int, away: int, takes_place: bool
) -> None:
    asked = lose_answers(db, monkeypatch, of=lost, takes_place=takes_place, then_away=away)
    money, first, second, too_much = Ledger(db, UTC_CALENDAR), hold_for(run, 30), hold_for(run, 40), hold_for(run, 90)

    answers = await asyncio.gather(*(money.reserve(each) for each in (first, second, too_much)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [float, float, LimitReached]
    assert reservations(db) == {first.id: "held", second.id: "held"}
    assert len(asked) > lost + away
    assert broken_money(db) == []


@pytest.mark.parametrize("takes_place", [True, False])
async def test_a_settlement_with_a_lost_answer_is_booked_once(
    db: Database, run: ClaimedRun, monkeypatch: pytest.MonkeyPatch, takes_place: bool
) -> None:
    money, hold = Ledger(db, UTC_CALENDAR), hold_for(run, 30)
    await money.reserve(hold)
    lose_answers(db, monkeypatch, of=2, takes_place=takes_place)

    await money.settle(Charge(hold.id, Amounts(20)))
    monkeypatch.undo()

    assert reservations(db) == {hold.id: "settled"}
    assert broken_money(db) == []
    assert isinstance(await money.reserve(hold_for(run, 80)), float)


async def test_what_an_earlier_try_books_late_is_booked_once(db: Database, run: ClaimedRun) -> None:
    holds = [hold_for(run, 60), hold_for(run, 30)]
    await db.transaction(lambda tx: ledger.reserve(tx, holds[:1], UTC_CALENDAR))

    answers = await db.transaction(lambda tx: ledger.write_again(tx, holds, (), UTC_CALENDAR))

    assert answers == {holds[0].id: 1.0, holds[1].id: pytest.approx(0.1)}
    assert len(reservations(db)) == 2


async def test_who_is_cancelled_meanwhile_gives_back_what_was_reserved(
    db: Database, run: ClaimedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    money, hold, other = Ledger(db, UTC_CALENDAR), hold_for(run, 70), hold_for(run, 30)
    is_asked, may_go = hold_up(db, monkeypatch)

    asking = asyncio.ensure_future(money.reserve(hold))
    beside = asyncio.ensure_future(money.reserve(other))
    await is_asked.wait()
    asking.cancel()
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await beside
    await money.close()

    assert reservations(db) == {hold.id: "settled", other.id: "held"}
    assert isinstance(await money.reserve(hold_for(run, 70)), float)
    assert broken_money(db) == []


async def test_who_is_cancelled_and_was_refused_gives_nothing_back(
    db: Database, run: ClaimedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    money = Ledger(db, UTC_CALENDAR)
    is_asked, may_go = hold_up(db, monkeypatch)

    asking = asyncio.ensure_future(money.reserve(hold_for(run, 700)))
    await is_asked.wait()
    asking.cancel()
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await money.close()

    assert reservations(db) == {}


def hold_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Transactions say when they are asked for, and wait until they may go."""
    tell, is_asked, may_go = db.transaction, asyncio.Event(), asyncio.Event()

    async def transaction(work: Callable[..., T], *, is_patient: bool = False) -> T:
        is_asked.set()
        await may_go.wait()
        return await tell(work, is_patient=is_patient)

    monkeypatch.setattr(db, "transaction", transaction)
    return is_asked, may_go


async def test_an_attempt_that_lost_its_run_reserves_nothing(db: Database, run: ClaimedRun) -> None:
    with pytest.raises(LeaseLost):
        await Ledger(db, UTC_CALENDAR).reserve(hold_for(run._replace(attempt=2), 1))

    assert reservations(db) == {}
