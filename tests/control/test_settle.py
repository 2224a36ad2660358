"""Settling and reaping: each attempt ends once, late workers change nothing, runs that kill workers end."""

from __future__ import annotations

import threading

import pytest

from pilothouse.control import attempts
from pilothouse.domain.runs import RunState
from pilothouse.errors import LeaseLost
from pilothouse.store.database import Database
from tests.control.steps import (
    actions_of,
    card,
    checkpoint,
    claim,
    ended,
    reap,
    register,
    run_of,
    settle,
    start_worker,
    state_of,
    submit,
    write,
)


def test_an_attempt_is_settled_once(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)

    first = settle(db, ended(run))
    second = settle(db, ended(run, "failed"))

    assert (first, second) == ({run.key}, set())
    assert run_of(db, run.run_id)["output"] == "1"
    assert actions_of(db, run.run_id) == ["run.submitted", "run.claimed", "run.succeeded"]


def test_a_failed_attempt_is_tried_again_until_its_attempts_are_spent(db: Database, worker: str) -> None:
    run_id = submit(db)
    states = []

    for _ in range(3):
        (run,) = claim(db, worker)
        settle(db, ended(run, "failed"))
        states.append(state_of(db, run_id))

    assert states == ["queued", "queued", "failed"]
    assert claim(db, worker) == []


def test_a_fatal_failure_ends_the_run_at_once(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)

    settle(db, ended(run, "fatal"))

    assert state_of(db, run_id) == "failed"


@pytest.mark.parametrize("ending", ["snoozed", "released"])
def test_snoozing_and_releasing_spend_no_attempt(db: Database, worker: str, ending: str) -> None:
    run_id = submit(db)

    for _ in range(5):
        (run,) = claim(db, worker)
        settle(db, ended(run, ending, delay_seconds=0.0))  # type: ignore[arg-type]

    run_row = run_of(db, run_id)
    assert (run_row["state"], run_row["failures"], run_row["attempt"]) == ("queued", 0, 5)


def test_a_reaped_attempt_is_lost_without_being_the_agents_failure(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)

    assert reap(db, worker) == [run.key]

    row = run_of(db, run_id)
    assert (row["state"], row["failures"], row["losses"]) == ("queued", 0, 1)
    assert "run.lost" in actions_of(db, run_id)
    assert actions_of(db, worker) == ["worker.started", "worker.lost"]


def test_a_late_worker_can_change_nothing(db: Database, worker: str) -> None:
    run_id = submit(db)
    (late,) = claim(db, worker)
    reap(db, worker)
    (current,) = claim(db, start_worker(db))

    refused = write(db, checkpoint(late, "step"))
    settled = settle(db, ended(late))

    assert isinstance(refused[0], LeaseLost)
    assert settled == set()
    assert state_of(db, run_id) == "running"
    with pytest.raises(LeaseLost):
        db.transaction_blocking(lambda tx: attempts.fence_worker(tx, worker))
    assert write(db, checkpoint(current, "step")) == [None]
    assert settle(db, ended(current)) == {current.key}


def test_a_fenced_row_fails_alone_and_never_its_batch(db: Database, worker: str) -> None:
    submit(db)
    (late,) = claim(db, worker)
    reap(db, worker)
    submit(db)
    claimed = claim(db, start_worker(db))
    own = next(run for run in claimed if run.run_id != late.run_id)

    answers = write(db, checkpoint(late, "a"), checkpoint(own, "a"))
    settled = settle(db, ended(late), ended(own))

    assert [type(answer) for answer in answers] == [LeaseLost, type(None)]
    assert settled == {own.key}


def test_a_run_that_kills_its_workers_ends_as_failed(db: Database) -> None:
    register(db, card("poison", max_losses=3))
    run_id = submit(db, "poison")

    for _ in range(3):
        worker = start_worker(db)
        db.administer(lambda tx: tx.execute("UPDATE runs SET available_at = 0 WHERE state = 'queued'"))
        assert claim(db, worker, agents=("poison",))
        reap(db, worker)

    row = run_of(db, run_id)
    assert (row["state"], row["losses"]) == ("failed", 3)
    assert '"type":"WorkerLost"' in row["error"]


def test_a_worker_that_renews_is_not_reaped(db: Database, worker: str) -> None:
    submit(db)
    claim(db, worker)

    reaped = db.transaction_blocking(lambda tx: attempts.reap_workers(tx, principal="system:janitor"))

    assert reaped == []


def test_reaping_and_settling_at_the_same_time_end_each_attempt_once(db: Database) -> None:
    for _ in range(15):
        worker = start_worker(db)
        run_id = submit(db)
        (run,) = claim(db, worker)
        threads = [
            threading.Thread(target=reap, args=(db, worker)),
            threading.Thread(target=settle, args=(db, ended(run))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert state_of(db, run_id) in ("succeeded", "queued")
        if state_of(db, run_id) == "queued":
            settle(db, *(ended(each) for each in claim(db, start_worker(db))))


@pytest.mark.parametrize("before", list(RunState))
@pytest.mark.parametrize("after", list(RunState))
def test_the_database_allows_just_the_transitions_of_the_table(db: Database, before: RunState, after: RunState) -> None:
    from pilothouse.domain.runs import TRANSITIONS
    from pilothouse.errors import StoreError

    def change(tx: object) -> None:
        """Undone in any case: only whether the trigger objects is looked at."""
        run = "INSERT INTO runs (id, tenant, agent, lane, priority, state, max_attempts, max_losses, input, root_id,"
        values = f"created_at) VALUES ('x', 't', 'a', 'l', 0, '{before}', 1, 1, '{{}}', 'x', 0)"
        tx.execute(f"{run} {values}")  # type: ignore[attr-defined]
        tx.execute(f"UPDATE runs SET state = '{after}' WHERE id = 'x'")  # type: ignore[attr-defined]
        raise _Undo

    with pytest.raises((StoreError, _Undo)) as raised:
        db.administer(change)

    assert (raised.type is _Undo) == (after in TRANSITIONS[before])


class _Undo(Exception):
    pass
