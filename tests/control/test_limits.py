"""Limits that change while runs wait under them: nobody sleeps on, and nobody waits in a circle."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from pilothouse.clock import new_id
from pilothouse.control import attempts, limits
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.bookings import Booking
from pilothouse.control.ledger import Charge
from pilothouse.control.waits import Wait
from pilothouse.domain.limits import Amounts, Limit, Period, Unit
from pilothouse.errors import InvalidInput, LimitReached, ReachedLimit
from pilothouse.store.database import Database, Transaction
from tests.control.money import broken_money, hold_for, limit_to, reserve, settle
from tests.control.steps import card, checkpoint, claim, demand, ended, reap, register, run_of, start_worker, submit
from tests.control.steps import settle as settle_runs
from tests.control.test_ledger import at_once, deadlocks, opened, opened_schema

LATER = 2**60


def refused(db: Database, run: ClaimedRun, microusd: int = 10) -> ReachedLimit:
    (answer,) = reserve(db, hold_for(run, microusd))
    assert isinstance(answer, LimitReached), answer
    return answer.reached


def wait_for(reached: ReachedLimit) -> Wait:
    return Wait("limit", f"{reached.account}/{reached.period}/{reached.unit}@{reached.epoch}", "s")


def suspend(db: Database, run: ClaimedRun, reached: ReachedLimit) -> None:
    settle_runs(db, ended(run, "suspended", waits=(wait_for(reached),), wake_at=LATER))


def is_due(db: Database, run: ClaimedRun) -> bool:
    row = run_of(db, run.run_id)
    assert row["state"] == "waiting"
    return bool(row["available_at"] < LATER)


@pytest.fixture
def run(db: Database, worker: str) -> ClaimedRun:
    submit(db)
    (claimed,) = claim(db, worker)
    limit_to(db, 5)
    return claimed


def test_a_run_that_waits_wakes_when_its_limit_is_raised(db: Database, run: ClaimedRun) -> None:
    suspend(db, run, refused(db, run))
    before = is_due(db, run)

    limit_to(db, 50)

    assert (before, is_due(db, run)) == (False, True)


def test_a_limit_raised_between_the_refusal_and_the_suspension_is_not_missed(db: Database, run: ClaimedRun) -> None:
    reached = refused(db, run)
    limit_to(db, 50)

    suspend(db, run, reached)

    assert is_due(db, run)


def test_a_change_of_another_limit_wakes_nobody_who_sleeps(db: Database, run: ClaimedRun) -> None:
    suspend(db, run, refused(db, run))

    limit_to(db, 50, "tenant:default")
    limit_to(db, 50, "run:*", period=Period.RUN)

    assert not is_due(db, run)


@pytest.mark.parametrize("raised", [[Limit("global", Period.DAY, Unit.MICROUSD, 50)], []])
@pytest.mark.parametrize("is_late", [True, False])
def test_settings_that_leave_more_room_wake_who_waits(
    db: Database, worker: str, raised: Sequence[Limit], is_late: bool
) -> None:
    """Also where the limit is gone, whichever comes first, the settings or the suspension."""
    submit(db)
    (run,) = claim(db, worker)
    adopt(db, [Limit("agent:*", Period.DAY, Unit.MICROUSD, 7), Limit("global", Period.DAY, Unit.MICROUSD, 5)])
    reached = refused(db, run)
    if is_late:
        suspend(db, run, reached)
    adopt(db, [Limit("agent:*", Period.DAY, Unit.MICROUSD, 7), *raised])
    if not is_late:
        limit_to(db, 100, "tool:mail")
        suspend(db, run, reached)

    assert is_due(db, run)


def adopt(db: Database, given: Sequence[Limit]) -> None:
    db.transaction_blocking(lambda tx: limits.adopt(tx, given, principal="settings"))


def test_the_latest_change_only_ever_grows(db: Database, run: ClaimedRun) -> None:
    seen = [refused(db, run).epoch]
    steps: list[list[Limit]] = [
        [Limit("tenant:*", Period.DAY, Unit.MICROUSD, 3)],
        [],
        [Limit("tenant:*", Period.DAY, Unit.MICROUSD, 3)],
        [Limit("tenant:*", Period.DAY, Unit.MICROUSD, 2)],
        [],
    ]
    for given in steps:
        adopt(db, given)
        seen.append(refused(db, run).epoch)

    assert seen == sorted(set(seen))


def test_what_an_operator_has_set_outlives_the_settings(db: Database, run: ClaimedRun) -> None:
    adopt(db, [Limit("global", Period.DAY, Unit.MICROUSD, 500)])
    adopt(db, [])

    assert refused(db, run).limit == 5


@pytest.mark.parametrize(
    "limit",
    [
        Limit("nobody", Period.DAY, Unit.MICROUSD, 1),
        Limit("global", Period.RUN, Unit.MICROUSD, 1),
        Limit("global", Period.DAY, Unit.CALLS, 1),
        Limit("global", Period.DAY, Unit.MICROUSD, -1),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_the_reason(db: Database, limit: Limit) -> None:
    with pytest.raises(InvalidInput):
        limit_to(db, limit.amount, limit.scope, period=limit.period, unit=limit.unit)


def test_two_hundred_runs_blocked_and_woken_at_once_all_wake(db: Database, worker: str) -> None:
    """Half of them suspended before the limit is raised, half while it is."""
    for _ in range(200):
        submit(db)
    runs = claim(db, worker, wanted=demand(normal=200))
    limit_to(db, 5)
    waits = [(run, refused(db, run)) for run in runs]
    for run, reached in waits[:100]:
        suspend(db, run, reached)

    with opened(db.url) as databases:

        def act(number: int) -> None:
            mine = databases[number % len(databases)]
            if number == 0:
                limit_to(mine, 50)
            for run, reached in waits[100 + number : 200 : 20]:
                suspend(mine, run, reached)

        at_once(act, 20)

    assert all(is_due(db, run) for run in runs)


def test_workers_operators_and_the_janitor_meet_in_no_circle(postgres_url: str) -> None:
    """Steps that reserve, suspensions, claims, settlements, limits and reaping, all on the same accounts."""
    with opened_schema(postgres_url) as db, opened(postgres_url) as databases:
        register(db, card("echo", max_losses=100), card("other", max_losses=100))
        limit_to(db, 400)
        limit_to(db, 10**9, "tenant:*", period=Period.MONTH)
        for number in range(60):
            submit(db, ("echo", "other")[number % 2], tenant=f"t{number % 4}")

        def act(number: int) -> None:
            mine, chance = databases[number % len(databases)], random.Random(number)
            if number < 2:
                for amount in chance.choices(range(200, 4_000), k=25):
                    limit_to(mine, amount, chance.choice(["global", "tenant:*", "tenant:t1"]))
                return
            worker = start_worker(mine)
            for _ in range(12):
                work(mine, worker, chance)
                if chance.random() < 0.2:
                    reap(mine, worker)
                    worker = start_worker(mine)

        at_once(act, 16)

        assert broken_money(db) == []
        time.sleep(1.1)  # the server's statistics are so late
        assert deadlocks(db) == 0


def work(db: Database, worker: str, chance: random.Random) -> None:
    """One cycle of a worker: some runs, a step of each that reserves, and the ends of all in one transaction."""
    runs = claim(db, worker, wanted=demand(normal=6), agents=("echo", "other"))
    holds = [hold_for(run, 10) for run in runs]
    others = [hold_for(run, 5) for run in runs]
    granted = [h for h, answer in zip(others, reserve(db, *others), strict=True) if isinstance(answer, float)]
    steps = [checkpoint(run, new_id())._replace(booking=Booking(hold)) for run, hold in zip(runs, holds, strict=True)]

    def cycle(tx: Transaction) -> None:
        attempts.fence_worker(tx, worker)
        answers = attempts.write_checkpoints(tx, steps)
        ends = [
            ended(run, "suspended", waits=(wait_for(answer.reached),), wake_at=0 if chance.random() < 0.5 else LATER)
            if isinstance(answer, LimitReached)
            else ended(run, "snoozed", delay_seconds=0.0)
            for run, answer in zip(runs, answers, strict=True)
        ]
        attempts.settle_attempts(tx, ends, principal="test")
        tx.fetch_one("limits_epoch")

    db.transaction_blocking(cycle)
    settle(db, *(Charge(hold.id, Amounts(3)) for hold in granted))
