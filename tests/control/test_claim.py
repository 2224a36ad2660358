"""Claiming: never one run twice, lanes with slots of their own, shared slots in lane order with ageing, priorities."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.lanes import AGEING_SECONDS
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    actions_of,
    card,
    claim,
    demand,
    ended,
    register,
    request,
    run_of,
    settle,
    start_worker,
    submit,
    submit_all,
)


def lanes_of(claimed: list[ClaimedRun]) -> Counter[str]:
    return Counter(str(run.lane) for run in claimed)


def fill(db: Database, **lanes: int) -> None:
    for lane, count in lanes.items():
        submit_all(db, *(request(lane=lane) for _ in range(count)))


def test_a_claim_starts_one_attempt_per_run(db: Database, worker: str) -> None:
    run_id = submit(db)

    (run,) = claim(db, worker)

    assert (run.run_id, run.attempt, run.input) == (run_id, 1, "{}")
    assert run_of(db, run_id)["state"] == "running"
    assert claim(db, worker) == []
    assert actions_of(db, run_id) == ["run.submitted", "run.claimed"]


def test_only_agents_that_the_worker_knows_are_claimed(db: Database, worker: str) -> None:
    submit(db, "other")

    assert claim(db, worker, agents=("echo", "greet")) == []
    assert len(claim(db, worker, agents=("other",))) == 1


def test_a_flood_of_low_leaves_the_slots_of_critical_free(db: Database, worker: str) -> None:
    fill(db, low=300)
    room = demand(critical=2, normal=2, low=2, shared=4)
    first = claim(db, worker, wanted=room)
    fill(db, critical=2)

    second = claim(db, worker, wanted=demand(critical=2, normal=2, low=0))

    assert lanes_of(first) == {"low": 6}
    assert lanes_of(second) == {"critical": 2}


def test_shared_slots_go_to_lanes_in_their_order(db: Database, worker: str) -> None:
    fill(db, low=10, normal=10, critical=10)

    claimed = claim(db, worker, wanted=demand(critical=1, normal=1, low=1, shared=3))

    assert lanes_of(claimed) == {"critical": 4, "normal": 1, "low": 1}


def test_without_slots_of_its_own_a_lane_lives_on_shared_ones(db: Database, worker: str) -> None:
    fill(db, low=3)

    assert lanes_of(claim(db, worker, wanted=demand(critical=2, normal=2, low=0, shared=2))) == {"low": 2}


@pytest.fixture
def frozen(database_url: str) -> tuple[Database, FrozenClock]:
    clock = FrozenClock(1_800_000_000_000_000)
    db = open_database(database_url, clock=clock)
    db.start()
    migrate(db)
    register(db, card("echo"))
    return db, clock


def test_low_never_starves_for_ever(frozen: tuple[Database, FrozenClock]) -> None:
    db, clock = frozen
    worker = start_worker(db, lease_us=10**12)
    fill(db, low=1, critical=3)
    rounds = 0

    while not (low := lanes_of(claim(db, worker, wanted=demand(critical=0, normal=0, low=0, shared=2)))["low"]):
        fill(db, critical=3)
        clock.advance(seconds=AGEING_SECONDS / 2)
        rounds += 1
        assert rounds < 10, "a critical flood keeps low waiting for ever"

    assert low == 1
    assert rounds > 1, "low went before critical at once, so this shows nothing"
    db.close()


def test_higher_priority_goes_first_and_equals_by_age(db: Database, worker: str) -> None:
    oldest, urgent, younger = submit(db), submit(db, priority=7), submit(db)

    order = [claim(db, worker, wanted=demand(normal=1))[0].run_id for _ in range(3)]

    assert order == [urgent, oldest, younger]


def test_delayed_runs_of_high_priority_do_not_hide_due_ones(db: Database, worker: str) -> None:
    submit_all(db, *(request(priority=9, available_at=2**60) for _ in range(50)))
    due = submit(db)

    assert [run.run_id for run in claim(db, worker, wanted=demand(normal=1))] == [due]


def test_threads_never_take_one_run_twice(db: Database) -> None:
    submit_all(db, *(request() for _ in range(200)))
    taken: list[tuple[str, int]] = []
    workers = [start_worker(db) for _ in range(6)]

    def work(worker_id: str) -> None:
        while claimed := claim(db, worker_id, wanted=demand(normal=7)):
            taken.extend(run.key for run in claimed)
            settle(db, *(ended(run) for run in claimed))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 200
    assert len(set(taken)) == 200
    assert all(attempt == 1 for _, attempt in taken)
