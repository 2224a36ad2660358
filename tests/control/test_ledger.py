"""Many spend at once, limits are set meanwhile, answers get lost: nothing is overspent, and no balance goes astray."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from pilothouse.control import ledger
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.instants import now
from pilothouse.control.ledger import Charge
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import Amounts, Period
from pilothouse.errors import LeaseLost, LimitReached
from pilothouse.store.database import Database, T, Transaction, open_database
from tests.control.money import balances, book, broken_money, hold_for, limit_to, reserve, settle
from tests.control.steps import claim, demand, reap, start_worker, submit
from tests.patience import WAIT_SECONDS

CALLERS, DATABASES = 40, 4
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
WAITING = "SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"


@pytest.fixture
def run(db: Database, worker: str) -> ClaimedRun:
    return running(db, worker)[0]


def running(db: Database, worker: str, count: int = 1, **options: Any) -> list[ClaimedRun]:
    for _ in range(count):
        submit(db, **options)
    return claim(db, worker, wanted=demand(normal=count))


@contextmanager
def opened(url: str, count: int = DATABASES) -> Iterator[list[Database]]:
    """So many databases, as so many processes have them."""
    found = [open_database(url, pool_size=CALLERS // count) for _ in range(count)]
    for each in found:
        each.start()
    try:
        yield found
    finally:
        for each in found:
            each.close()


def at_once(work: Callable[[int], T], count: int = CALLERS) -> list[T]:
    """What all of them came to, begun together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> T:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def total(db: Database, account: str = "global") -> int:
    """What is settled and reserved today, in micro-dollars."""
    ((_, row),) = ((key, row) for key, row in balances(db).items() if key[0] == account and len(key[1]) == 10)
    return int(row["settled_microusd"] + row["reserved_microusd"])


def used_today(tx: Transaction) -> int:
    row = {"account": "global", "period": UTC_CALENDAR.day(now(tx))}
    (found,) = tx.fetch_many("balances_of", [row])
    return int(found["settled_microusd"] + found["reserved_microusd"])


# --- one limit ---------------------------------------------------------------------------------


def test_forty_callers_cannot_pass_one_limit_and_leave_no_room_unused(db: Database, worker: str) -> None:
    runs = running(db, worker, CALLERS)
    limit_to(db, 1_000)
    passed: list[int] = []

    with opened(db.url) as databases:

        def spend(number: int) -> int:
            """Reserves 9, uses 7, until nobody gives anything back any more."""
            mine, spent = databases[number % DATABASES], 0
            while True:
                hold = hold_for(runs[number], 9)
                (answer,) = reserve(mine, hold)
                if isinstance(answer, LimitReached) and not answer.reached.is_contended:
                    return spent
                if isinstance(answer, float):
                    passed.append(mine.read_blocking(used_today))
                    settle(mine, Charge(hold.id, Amounts(7)))
                    spent += 7

        spent = at_once(spend)

    assert max(passed) <= 1_000
    assert sum(spent) == total(db)
    assert 1_000 - 9 < sum(spent) <= 1_000
    assert broken_money(db) == []


def test_what_nobody_gives_back_is_granted_exactly_as_often_as_it_fits(db: Database, worker: str) -> None:
    runs = running(db, worker, CALLERS)
    limit_to(db, 250)

    with opened(db.url) as databases:
        answers = at_once(lambda number: reserve(databases[number % DATABASES], hold_for(runs[number], 10))[0])

    assert sum(isinstance(answer, float) for answer in answers) == 25
    assert {answer.reached.is_contended for answer in answers if isinstance(answer, LimitReached)} == {True}
    assert total(db) == 250


def test_a_limit_below_what_is_spent_refuses_everything_and_breaks_nothing(db: Database, run: ClaimedRun) -> None:
    limit_to(db, 100)
    held = hold_for(run, 60)
    reserve(db, held)
    limit_to(db, 10)

    (refused, free) = reserve(db, hold_for(run, 1), hold_for(run, 0, tokens=5))
    settle(db, Charge(held.id, Amounts(40)))

    assert isinstance(refused, LimitReached)
    assert (refused.reached.free, refused.reached.is_contended) == (0, True)
    assert isinstance(free, float)
    assert total(db) == 40
    limit_to(db, 41)
    assert isinstance(reserve(db, hold_for(run, 1))[0], float)


def test_an_overrun_is_booked_as_it_is_and_stops_what_comes_after(db: Database, run: ClaimedRun) -> None:
    limit_to(db, 100)
    hold = hold_for(run, 90)
    reserve(db, hold)

    settle(db, Charge(hold.id, Amounts(120)), Charge(hold.id, Amounts(1)))
    settle(db, Charge(hold.id, Amounts(5)))
    (answer,) = reserve(db, hold_for(run, 1))

    assert total(db) == 120
    assert isinstance(answer, LimitReached)
    assert not answer.reached.is_contended
    assert broken_money(db) == []


def test_a_call_has_the_room_that_its_own_earlier_try_gives_back(db: Database, run: ClaimedRun) -> None:
    limit_to(db, 10)
    earlier = hold_for(run, 10)
    assert book(db, run, earlier) == [None]

    again = book(db, run, hold_for(run, 10), charges=[Charge(earlier.id, Amounts(), "it did not happen")])

    assert again == [None]
    assert total(db) == 10


def test_a_lost_attempt_takes_no_room_from_others_of_its_batch(db: Database, worker: str) -> None:
    (lost,) = running(db, worker)
    reap(db, worker)
    (run,) = claim(db, start_worker(db))
    limit_to(db, 10)

    dropped, granted = reserve(db, hold_for(lost, 10), hold_for(run, 10))

    assert isinstance(dropped, LeaseLost)
    assert isinstance(granted, float)


# --- a limit that is new -----------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "tenant:default", "tenant:*", "agent:*", "run:*", "run@echo"])
def test_a_new_limit_counts_what_was_spent_before_it(db: Database, run: ClaimedRun, scope: str) -> None:
    holds = [hold_for(run, 10) for _ in range(3)]
    reserve(db, *holds)
    settle(db, Charge(holds[0].id, Amounts(4)))
    period = Period.RUN if scope.startswith("run") else Period.MONTH

    limit_to(db, 30, scope, period=period)
    granted, refused = reserve(db, hold_for(run, 6), hold_for(run, 1))

    assert isinstance(granted, float)
    assert isinstance(refused, LimitReached)
    assert (refused.reached.settled, refused.reached.reserved) == (4, 26)
    assert broken_money(db) == []


def test_a_limit_that_was_lifted_counts_again_what_was_spent_meanwhile(db: Database, run: ClaimedRun) -> None:
    limit_to(db, 10, "agent:*")
    limit_to(db, None, "agent:echo")
    reserve(db, hold_for(run, 50))

    limit_to(db, 60, "agent:echo")
    granted, refused = reserve(db, hold_for(run, 10), hold_for(run, 1))

    assert isinstance(granted, float)
    assert isinstance(refused, LimitReached)
    assert broken_money(db) == []


def test_a_limit_waits_for_who_is_spending_when_it_is_set(postgres_url: str, tmp_path: Any) -> None:
    """What is settled in a transaction that nobody else sees yet must be in the balance that the limit opens."""
    with opened_schema(postgres_url) as db, ThreadPoolExecutor(2) as threads:
        (run,) = running(db, start_worker(db))
        hold = hold_for(run, 10)
        reserve(db, hold)
        is_written, may_commit = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> None:
            ledger.settle(tx, [Charge(hold.id, Amounts(7))], UTC_CALENDAR)
            tx.fetch_one("limits_epoch")
            is_written.set()
            assert may_commit.wait(30)

        settling = threads.submit(db.transaction_blocking, slow)
        assert is_written.wait(30)
        limiting = threads.submit(limit_to, db, 20)
        until(lambda: db.examine(lambda tx: tx.fetch_all(WAITING))[0]["waiting"] == 1)
        may_commit.set()
        settling.result(), limiting.result()
        granted, refused = reserve(db, hold_for(run, 13), hold_for(run, 1))

        assert isinstance(granted, float)
        assert isinstance(refused, LimitReached)
        assert (refused.reached.settled, refused.reached.reserved) == (7, 13)
        assert broken_money(db) == []


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def opened_schema(url: str) -> Iterator[Database]:
    from pilothouse.store.migrations import migrate
    from tests.control.steps import card, register

    with opened(url, 1) as (db,):
        migrate(db)
        register(db, card("echo"))
        yield db


SCOPES = ("global", "tenant:*", "tenant:t1", "agent:*", "agent:echo", "user:*", "user:u2", "run:*", "run@echo")


def test_limits_that_are_set_while_all_spend_find_every_entry(db: Database, worker: str) -> None:
    """Every limit for the first time, and lifted and set again, while others reserve and settle under it."""
    runs = [running(db, worker, tenant=f"t{number % 3}", user_id=f"u{number % 4}")[0] for number in range(CALLERS // 2)]
    is_over = threading.Event()

    with opened(db.url) as databases:

        def spend(number: int) -> None:
            mine, chance = databases[number % DATABASES], random.Random(number)
            while not is_over.is_set():
                holds = [hold_for(runs[number], chance.randrange(9), tokens=1) for _ in range(2)]
                answers = reserve(mine, *holds)
                granted = [hold for hold, answer in zip(holds, answers, strict=True) if isinstance(answer, float)]
                settle(mine, *(Charge(hold.id, Amounts(chance.randrange(9), 2)) for hold in granted[:1]))

        def limit(number: int) -> None:
            if number < len(runs):
                return spend(number)
            chance = random.Random(number)
            try:
                for _ in range(3):
                    for scope in chance.sample(SCOPES, len(SCOPES)):
                        period = Period.RUN if scope.startswith("run") else chance.choice([Period.DAY, Period.MONTH])
                        limit_to(databases[number % DATABASES], chance.choice([None, 5_000_000]), scope, period=period)
            finally:
                is_over.set()

        at_once(limit, len(runs) + 1)

    for scope in SCOPES:
        for period in [Period.RUN] if scope.startswith("run") else [Period.DAY, Period.MONTH]:
            limit_to(db, 1, scope, period=period)
    refused = [reserve(db, hold_for(run, 1))[0] for run in runs]
    assert all(isinstance(answer, LimitReached) for answer in refused)
    assert broken_money(db) == []


def test_balances_that_all_open_at_once_meet_in_no_circle(postgres_url: str) -> None:
    """As at midnight. A circle would cost its victims a second each."""
    with opened_schema(postgres_url) as db, opened(postgres_url) as databases:
        worker = start_worker(db)
        for scope in ("global", "tenant:*", "agent:*", "user:*"):
            limit_to(db, 10**9, scope)
            limit_to(db, 10**9, scope, period=Period.MONTH)
        limit_to(db, 10**9, "run:*", period=Period.RUN)
        for round in range(5):
            runs = [
                running(db, worker, tenant=f"t{round}-{n % 3}", user_id=f"u{round}-{n % 5}")[0] for n in range(CALLERS)
            ]

            def spend(number: int, runs: list[ClaimedRun] = runs) -> list[float | Exception]:
                chosen = random.Random(number).sample(runs, 5)
                return reserve(databases[number % DATABASES], *(hold_for(run, 1) for run in chosen))

            answers = at_once(spend)
            assert all(isinstance(answer, float) for batch in answers for answer in batch)

        assert broken_money(db) == []
        time.sleep(1.1)  # the server's statistics are so late
        assert deadlocks(db) == 0


def deadlocks(db: Database) -> int:
    return int(db.examine(lambda tx: tx.fetch_all(DEADLOCKS))[0]["deadlocks"])
