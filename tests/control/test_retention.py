"""Retention: old runs leave with everything of theirs, what is still wanted stays, and no counter turns back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.clock import FrozenClock, first_id, new_id
from pilothouse.control import checks, counters, retention
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from pilothouse.store.storage import measure
from tests.control.steps import (
    card,
    checkpoint,
    claim,
    ended,
    register,
    request,
    settle,
    start_worker,
    submit,
    submit_all,
    write,
)

DAY_US = 86_400_000_000


@pytest.fixture
def aged(database_url: str) -> Iterator[Database]:
    """Its clock is a year ahead of the ids that are made now, so that they are old enough at once."""
    clock = FrozenClock(_now() + 365 * DAY_US)
    db = open_database(database_url, clock=clock)
    db.start()
    migrate(db)
    register(db, card("echo", max_attempts=1))
    yield db
    db.close()


def _now() -> int:
    return int(new_id().replace("-", "")[:12], 16) * 1000


def prune(db: Database, days: float = 30) -> list[str]:
    return db.transaction_blocking(lambda tx: retention.prune_batch(tx, keep_us=int(days * DAY_US)))


def advance(db: Database, days: float) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=days * 86_400)


def counts(db: Database) -> dict[str, int]:
    return {each.table: each.rows for each in measure(db).tables}


def holds(db: Database) -> bool:
    verdicts = db.read_blocking(lambda tx: checks.verdicts(tx, checks.ANY_GRACE_US))
    return all(verdict.holds for verdict in verdicts)


def end_all(db: Database, ending: str = "succeeded") -> None:
    runs = claim(db, start_worker(db, lease_us=10**15))
    write(db, *(checkpoint(run, "s") for run in runs))
    settle(db, *(ended(run, ending) for run in runs))  # type: ignore[arg-type]


def test_runs_that_ended_long_ago_leave_with_everything_of_theirs(aged: Database) -> None:
    submit_all(aged, *(request() for _ in range(5)))
    end_all(aged)
    young = submit(aged)
    advance(aged, 31)
    settled = aged.read_blocking(lambda tx: counters.read(tx, "attempts"))

    assert len(prune(aged)) == 5

    left = counts(aged)
    assert (left["runs"], left["attempts"], left["checkpoints"]) == (1, 0, 0)
    assert [row["id"] for row in aged.administer(lambda tx: tx.fetch_all("SELECT id FROM runs"))] == [young]
    assert aged.read_blocking(lambda tx: counters.read(tx, "attempts")) == settled, "what is counted over time stays"
    assert holds(aged)
    assert prune(aged) == []


def test_what_is_not_old_enough_or_still_wanted_stays(aged: Database) -> None:
    submit(aged)
    end_all(aged, "fatal")
    (letter,) = [row["id"] for row in aged.administer(lambda tx: tx.fetch_all("SELECT id FROM runs"))]
    advance(aged, 29)
    submit(aged)
    end_all(aged)
    advance(aged, 2)

    assert prune(aged) == [], "a dead letter stays until it is dealt with, the other run is 2 days old"
    aged.transaction_blocking(lambda tx: tx.fetch_many("dismiss_runs", [{"id": letter}]))
    assert prune(aged) == [letter]
    assert holds(aged)


def test_a_child_stays_as_long_as_its_parent_may_read_it(aged: Database) -> None:
    parent = submit(aged)
    (running,) = claim(aged, start_worker(aged, lease_us=10**15))
    child = submit(aged, parent_id=parent, root_id=parent)
    end_all(aged)
    advance(aged, 31)

    assert prune(aged) == []
    settle(aged, ended(running))
    advance(aged, 31)
    assert sorted(prune(aged)) == sorted([parent, child])
    assert holds(aged)


async def test_a_large_backlog_is_pruned_in_batches(aged: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    submit_all(aged, *(request() for _ in range(11)))
    end_all(aged)
    advance(aged, 31)

    await retention.Pruner(aged, 30 * DAY_US).prune()

    assert counts(aged)["runs"] == 0
    assert holds(aged)


@given(st.integers(0, 2**47), st.integers(0, 10**9))
def test_the_first_id_of_an_instant_parts_before_from_after(milliseconds: int, later: int) -> None:
    first = first_id(milliseconds * 1000)

    assert first_id((milliseconds + later) * 1000) >= first
    assert len(first) == 36
    assert (first <= new_id()) == (milliseconds <= int(new_id().replace("-", "")[:12], 16))
