"""Schedules on both stores: what fires, once, by whose policy, and what people can do about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import schedules
from pilothouse.control.schedules import ScheduleCard
from pilothouse.domain.schedules import CatchUp, Overlap
from pilothouse.errors import ConfigError, Conflict, NotFound
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import actions_of, card, claim, ended, register, settle, start_worker
from tests.patience import WAIT_SECONDS

MINUTE = 60.0


def declare(db: Database, *cards: ScheduleCard, app: str = "tests") -> None:
    db.transaction_blocking(lambda tx: schedules.register(tx, app, cards, principal="test"))


def nightly(**changes: Any) -> ScheduleCard:
    values: dict[str, Any] = {"name": "nightly", "agent": "echo", "cron": "*/5 * * * *", "input": "{}"}
    return ScheduleCard(**(values | changes))


def fire(db: Database) -> int:
    return db.transaction_blocking(lambda tx: schedules.fire_due(tx, principal="test"))


def move(db: Database, minutes: float) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=minutes * MINUTE)


def runs_of(db: Database) -> list[Row]:
    return db.administer(lambda tx: tx.fetch_all("SELECT * FROM runs ORDER BY id"))


def the_schedule(db: Database) -> Row:
    (row,) = db.read_blocking(lambda tx: tx.fetch_all("list_schedules"))
    return row


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """With a clock that the test moves; it starts five minutes before the full hour."""
    db = open_database(database_url, clock=FrozenClock(1_799_998_500_000_000))
    db.start()
    migrate(db)
    yield db
    db.close()


@pytest.fixture
def scheduled(database: Database) -> Database:
    register(database, card("echo"))
    declare(database, nightly())
    return database


def test_a_schedule_fires_when_its_instant_has_come_and_once(scheduled: Database) -> None:
    assert fire(scheduled) == 0
    move(scheduled, 5)

    assert [fire(scheduled), fire(scheduled)] == [1, 0]

    (run,) = runs_of(scheduled)
    assert run["idempotency_key"].startswith("schedule:nightly:")
    assert (the_schedule(scheduled)["last_run_id"], the_schedule(scheduled)["last_run_state"]) == (run["id"], "queued")
    assert actions_of(scheduled, "nightly") == ["schedule.registered", "schedule.fired"]


@pytest.mark.parametrize(("catch_up", "made_up"), [("none", 0), ("one", 1), ("all", 3)])
def test_missed_fires_are_made_up_for_by_policy(database: Database, catch_up: str, made_up: int) -> None:
    register(database, card("echo"))
    declare(database, nightly(catch_up=CatchUp(catch_up), catch_up_limit=3, overlap=Overlap.ALLOW))
    move(database, 62)

    assert fire(database) == made_up
    assert "schedule.missed" in actions_of(database, "nightly")
    assert the_schedule(database)["next_fire_at"] > database.clock.now_us()


@pytest.mark.parametrize(("overlap", "states"), [("allow", ["running", "queued"]), ("skip", ["running"])])
def test_a_fire_meets_the_run_of_the_last_one(database: Database, overlap: str, states: list[str]) -> None:
    register(database, card("echo"))
    declare(database, nightly(overlap=Overlap(overlap)))
    move(database, 5)
    fire(database)
    (running,) = claim(database, start_worker(database, lease_us=10**12))
    move(database, 5)
    fire(database)

    assert [run["state"] for run in runs_of(database)] == states
    settle(database, ended(running))
    move(database, 5)
    assert fire(database) == 1


def test_a_fire_may_cancel_the_run_of_the_last_one(database: Database) -> None:
    register(database, card("echo"))
    declare(database, nightly(overlap=Overlap.CANCEL))
    for _ in range(2):
        move(database, 5)
        fire(database)

    assert [run["state"] for run in runs_of(database)] == ["cancelled", "queued"]


def test_two_schedulers_at_once_fire_an_instant_once(scheduled: Database) -> None:
    for _ in range(5):
        move(scheduled, 5)
        before = len(runs_of(scheduled))
        ready = threading.Barrier(3)
        counts: list[int] = []

        def one(ready: threading.Barrier = ready, counts: list[int] = counts) -> None:
            ready.wait(timeout=WAIT_SECONDS)
            counts.append(fire(scheduled))

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(counts) <= 1
        assert len(runs_of(scheduled)) - before == sum(counts)
        settle(scheduled, *(ended(run) for run in claim(scheduled, start_worker(scheduled, lease_us=10**12))))
    assert len(runs_of(scheduled)) == 5


async def test_a_paused_schedule_fires_no_more_and_misses_nothing_when_resumed(scheduled: Database) -> None:
    await schedules.pause_schedule(scheduled, "nightly", principal="me")
    move(scheduled, 30)
    assert fire(scheduled) == 0

    await schedules.resume_schedule(scheduled, "nightly", principal="me")
    assert fire(scheduled) == 0
    move(scheduled, 5)
    assert fire(scheduled) == 1
    with pytest.raises(Conflict, match="is not paused"):
        await schedules.resume_schedule(scheduled, "nightly", principal="me")


async def test_firing_by_hand_does_not_touch_the_next_instant(scheduled: Database) -> None:
    before = the_schedule(scheduled)["next_fire_at"]
    first = await schedules.fire_schedule(scheduled, "nightly", principal="me", key="k")

    assert the_schedule(scheduled)["next_fire_at"] == before
    with pytest.raises(Conflict, match=f"run {first.id} of the last fire has not ended"):
        await schedules.fire_schedule(scheduled, "nightly", principal="me")
    with pytest.raises(NotFound, match="did you mean 'nightly'"):
        await schedules.fire_schedule(scheduled, "nightyl", principal="me")


def test_what_code_declares_no_more_is_removed_and_what_it_changes_is_changed(scheduled: Database) -> None:
    declare(scheduled)
    move(scheduled, 5)
    assert fire(scheduled) == 0
    assert the_schedule(scheduled)["removed_at"] is not None

    declare(scheduled, nightly(cron="0 0 1 1 *"))
    assert the_schedule(scheduled)["removed_at"] is None
    move(scheduled, 5)
    assert fire(scheduled) == 0
    with pytest.raises(ConfigError, match="belongs to App 'tests'"):
        declare(scheduled, nightly(), app="others")


def test_declaring_the_same_again_keeps_what_is_due(scheduled: Database) -> None:
    move(scheduled, 5)
    declare(scheduled, nightly())
    assert fire(scheduled) == 1


def test_a_fire_that_is_refused_says_why_and_the_schedule_goes_on(database: Database) -> None:
    declare(database, nightly(agent="nobody"))
    move(database, 5)

    assert fire(database) == 0
    assert "unknown agent 'nobody'" in the_schedule(database)["last_error"]
    assert actions_of(database, "nightly") == ["schedule.registered", "schedule.refused"]
    register(database, card("nobody"))
    move(database, 5)
    assert fire(database) == 1
    assert the_schedule(database)["last_error"] is None
