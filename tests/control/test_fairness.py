"""Tenants share a lane: however many runs one has queued, the others' turn comes by how much each runs already."""

from __future__ import annotations

import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.control.attempts import ClaimedRun
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import card, claim, demand, ended, register, request, settle, start_worker, submit_all


@contextmanager
def fresh_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        db = open_database(f"sqlite:///{Path(folder) / 'fair.db'}?synchronous=normal")
        db.start()
        migrate(db)
        yield db
        db.close()


def prepare(db: Database) -> str:
    register(db, card("echo"))
    return start_worker(db)


def tenants_of(claimed: list[ClaimedRun]) -> Counter[str]:
    return Counter(run.tenant for run in claimed)


def submit_for(db: Database, tenant: str, count: int, **options: Any) -> None:
    submit_all(db, *(request(tenant=tenant, **options) for _ in range(count)))


def test_a_flood_of_one_tenant_takes_half_of_what_two_want(database: Database) -> None:
    worker = prepare(database)
    submit_for(database, "flood", 300)
    submit_for(database, "other", 30)

    claimed = claim(database, worker, wanted=demand(normal=10))

    assert tenants_of(claimed) == {"flood": 5, "other": 5}
    assert [run.run_id for run in claimed if run.tenant == "flood"] == sorted(
        run.run_id for run in claimed if run.tenant == "flood"
    )


def test_whoever_runs_less_is_next_however_long_the_others_have_waited(database: Database) -> None:
    """One slot at a time comes free, as with runs that last: each freed slot goes to whoever holds fewer."""
    worker = prepare(database)
    submit_for(database, "flood", 300)
    running = deque(claim(database, worker, wanted=demand(normal=4)))
    submit_for(database, "other", 20)

    served = Counter[str]()
    for _ in range(44):
        settle(database, ended(running.popleft()))
        (run,) = claim(database, worker, wanted=demand(normal=1))
        running.append(run)
        served[run.tenant] += 1

    assert served["other"] == 20, "all of the other's runs are done long before the flood is"


def test_shared_slots_are_shared_by_tenants_too(database: Database) -> None:
    worker = prepare(database)
    submit_for(database, "flood", 100)
    claim(database, worker, wanted=demand(normal=0, shared=3))
    submit_for(database, "other", 100)

    claimed = claim(database, worker, wanted=demand(normal=0, shared=3))

    assert tenants_of(claimed) == {"other": 3}


def test_many_tenants_have_a_turn_each(database: Database) -> None:
    worker = prepare(database)
    submit_for(database, "flood", 200)
    for number in range(40):
        submit_for(database, f"tenant-{number:02}", 2)

    claimed = claim(database, worker, wanted=demand(normal=41))

    assert set(tenants_of(claimed).values()) == {1}
    assert len(claim(database, worker, wanted=demand(normal=400))) == 239


def test_a_priority_goes_before_a_turn(database: Database) -> None:
    worker = prepare(database)
    submit_for(database, "patient", 5)
    submit_for(database, "urgent", 5, priority=9)

    claimed = claim(database, worker, wanted=demand(normal=5))

    assert tenants_of(claimed) == {"urgent": 5}


def test_delayed_runs_of_other_tenants_take_no_turn(database: Database) -> None:
    worker = prepare(database)
    for number in range(60):
        submit_for(database, f"later-{number}", 1, available_at=2**60)
    submit_for(database, "now", 50)

    assert len(claim(database, worker, wanted=demand(normal=50))) == 50


@settings(max_examples=30)
@given(queued=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 12), min_size=1), slots=st.integers(1, 30))
def test_turns_are_as_even_as_the_queues_allow(queued: dict[str, int], slots: int) -> None:
    """Max-min fairness: nobody has two runs more than somebody who still waits."""
    with fresh_database() as db:
        worker = prepare(db)
        for tenant, count in queued.items():
            submit_for(db, tenant, count)

        got = tenants_of(claim(db, worker, wanted=demand(normal=slots)))

        assert sum(got.values()) == min(slots, sum(queued.values()))
        waiting = [tenant for tenant, count in queued.items() if got[tenant] < count]
        assert all(got[other] <= got[tenant] + 1 for tenant in waiting for other in queued)
