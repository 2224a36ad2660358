"""The pump with two cycles in flight: what one of them has claimed does not prove that the other took place."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.engine import pump as pumps
from pilothouse.engine.pump import Owner, Pump
from pilothouse.errors import OutcomeUnknown
from pilothouse.store.database import Database, T, Work
from tests.control.steps import card, claim, demand, ended, register, start_worker, state_of, submit, version_of
from tests.patience import WAIT_SECONDS


class Holder:
    """A worker, as far as a pump needs one."""

    def __init__(self, db: Database, worker_id: str, held: list[ClaimedRun]) -> None:
        self.started = held
        self.slots = 1
        owner = Owner(
            worker_id=worker_id,
            agents=[version_of("echo")],
            claim_limit=10,
            calendar=UTC_CALENDAR,
            demand=lambda: demand(normal=self.slots),
            holds=lambda key: key in {run.key for run in self.started},
            on_claimed=lambda runs: None,
            start=self.started.extend,
            on_lease_lost=lambda: None,
            on_paused=lambda reason: None,
            on_resumed=lambda: None,
            on_fault=lambda error: None,
        )
        self.pump = Pump(db, owner)


@pytest.fixture(autouse=True)
def _two_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "IN_FLIGHT", {"sqlite": 2, "postgres": 2})


async def test_a_lost_answer_beside_a_slow_claim_is_not_taken_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(database, card("echo"))
    worker = start_worker(database)
    first = submit(database)
    holder = Holder(database, worker, claim(database, worker))
    second = submit(database)
    tell, has_claimed, may_answer = database.transaction, asyncio.Event(), asyncio.Event()
    calls = iter(range(100))

    async def transaction(work: Work[T], *, is_patient: bool = False) -> T:
        number = next(calls) if is_patient else -1
        if number == 1:
            raise OutcomeUnknown("it did not take place, and nobody knows")
        answer = await tell(work, is_patient=is_patient)
        if number == 0:
            has_claimed.set()
            await may_answer.wait()
        return answer

    monkeypatch.setattr(database, "transaction", transaction)
    holder.pump.claim()
    await has_claimed.wait()
    settling: asyncio.Future[bool | Exception] = asyncio.get_running_loop().create_future()
    holder.pump.settle(ended(holder.started[0]), settling.set_result)
    holder.slots = 2
    holder.pump.claim()  # goes out with the settlement
    asyncio.get_running_loop().call_later(0.05, may_answer.set)

    async with asyncio.timeout(WAIT_SECONDS):
        is_settled = await settling
    await holder.pump.close(5.0)

    assert is_settled is True
    assert state_of(database, first) == "succeeded"
    assert [run.run_id for run in holder.started] == [first, second]
