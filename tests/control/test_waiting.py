"""Waiting: nothing is held, whoever is waited for wakes the run, and no wake-up is missed whichever comes first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from pilothouse.control import attempts, cancels, signals
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.waits import Wait
from pilothouse.errors import Conflict, NotFound
from pilothouse.store.database import Database, Transaction
from tests.control.steps import checkpoint, claim, ended, request, run_of, settle, state_of, submit, write

HOLD_SECONDS = 2.0


def send(db: Database, run_id: str, name: str, payload: object = None) -> bool:
    return asyncio.run(signals.send_signal(db, run_id, name, payload, principal="test"))


def suspend(db: Database, run: ClaimedRun, *waits: Wait, wake_at: int | None = None) -> None:
    assert settle(db, ended(run, "suspended", waits=waits, wake_at=wake_at)) == {run.key}


def parent_with_children(db: Database, worker: str, count: int) -> tuple[ClaimedRun, list[ClaimedRun]]:
    parent_id = submit(db)
    parent = next(run for run in claim(db, worker) if run.run_id == parent_id)
    children = tuple(request("other", parent_id=parent.run_id) for _ in range(count))
    assert write(db, checkpoint(parent, "children", children=children)) == [None]
    return parent, claim(db, worker, agents=("other",))


def is_awake(db: Database, run_id: str) -> bool:
    row = run_of(db, run_id)
    return row["state"] == "waiting" and row["available_at"] is not None


def test_a_waiting_run_is_not_claimed_and_has_no_attempt_under_way(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)

    suspend(db, run, Wait("signal", "go", "g"))

    assert claim(db, worker) == []
    assert not is_awake(db, run.run_id)


def test_a_signal_wakes_the_run(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    suspend(db, run, Wait("signal", "go", "g"))

    assert send(db, run.run_id, "go", {"x": 1})

    (again,) = claim(db, worker)
    assert again.key == (run.run_id, 2)


def test_a_signal_before_the_wait_is_kept_and_the_first_one_wins(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)

    assert send(db, run.run_id, "go", 1)
    assert not send(db, run.run_id, "go", 2)
    suspend(db, run, Wait("signal", "go", "g"))

    assert is_awake(db, run.run_id)
    row = db.read_blocking(lambda tx: tx.fetch_one("signal_by_name", run_id=run.run_id, name="go"))
    assert row is not None
    assert row["payload"] == "1"


def test_another_signal_does_not_wake_it(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    suspend(db, run, Wait("signal", "go", "g"))

    send(db, run.run_id, "stop")

    assert not is_awake(db, run.run_id)


def test_a_signal_to_nobody_or_to_an_ended_run_is_refused(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    settle(db, ended(run))

    with pytest.raises(Conflict, match="succeeded already"):
        send(db, run.run_id, "go")
    with pytest.raises(NotFound):
        send(db, "nobody", "go")


def test_a_group_wakes_its_run_only_when_all_of_it_has_happened(db: Database, worker: str) -> None:
    parent, children = parent_with_children(db, worker, 3)
    suspend(db, parent, *(Wait("child", child.run_id, "all") for child in children))

    settle(db, ended(children[0]), ended(children[1], "fatal"))
    before = is_awake(db, parent.run_id)
    settle(db, ended(children[2]))

    assert (before, is_awake(db, parent.run_id)) == (False, True)


def test_any_group_wakes_the_run(db: Database, worker: str) -> None:
    parent, children = parent_with_children(db, worker, 2)
    suspend(db, parent, *(Wait("child", child.run_id, child.run_id) for child in children))

    settle(db, ended(children[1]))

    assert is_awake(db, parent.run_id)


def test_children_that_ended_before_the_wait_count(db: Database, worker: str) -> None:
    parent, children = parent_with_children(db, worker, 2)
    settle(db, *(ended(child) for child in children))

    suspend(db, parent, *(Wait("child", child.run_id, "all") for child in children))

    assert is_awake(db, parent.run_id)


def test_a_child_that_is_tried_again_does_not_wake_its_parent(db: Database, worker: str) -> None:
    parent, (child,) = parent_with_children(db, worker, 1)
    suspend(db, parent, Wait("child", child.run_id, "all"))

    settle(db, ended(child, "failed"))

    assert state_of(db, child.run_id) == "queued"
    assert not is_awake(db, parent.run_id)


def test_a_cancelled_child_wakes_its_parent(db: Database, worker: str) -> None:
    parent, (child,) = parent_with_children(db, worker, 1)
    settle(db, ended(child, "failed"))
    suspend(db, parent, Wait("child", child.run_id, "all"))

    asyncio.run(cancels.cancel_run(db, child.run_id, principal="test"))

    assert state_of(db, child.run_id) == "cancelled"
    assert is_awake(db, parent.run_id)


def test_the_last_children_ending_at_the_same_time_wake_the_parent(db: Database, worker: str) -> None:
    for _ in range(8):
        parent, children = parent_with_children(db, worker, 4)
        suspend(db, parent, *(Wait("child", child.run_id, "all") for child in children))

        at_once(*(lambda child=child: settle(db, ended(child)) for child in children))

        assert is_awake(db, parent.run_id)


def test_going_to_sleep_while_the_child_ends_misses_nothing(db: Database, worker: str) -> None:
    for _ in range(12):
        parent, (child,) = parent_with_children(db, worker, 1)

        at_once(
            lambda parent=parent, child=child: suspend(db, parent, Wait("child", child.run_id, "all")),  # type: ignore[misc]
            lambda child=child: settle(db, ended(child)),  # type: ignore[misc]
        )

        assert is_awake(db, parent.run_id)


def test_going_to_sleep_while_the_signal_comes_misses_nothing(db: Database, worker: str) -> None:
    for _ in range(12):
        submit(db)
        (run,) = claim(db, worker)

        at_once(
            lambda run=run: suspend(db, run, Wait("signal", "go", "g")),  # type: ignore[misc]
            lambda run=run: send(db, run.run_id, "go"),  # type: ignore[misc]
        )

        assert is_awake(db, run.run_id)
        settle(db, *(ended(each) for each in claim(db, worker)))


def test_a_child_that_ends_unseen_while_its_parent_goes_to_sleep_wakes_it(db: Database, worker: str) -> None:
    parent, (child,) = parent_with_children(db, worker, 1)
    has_settled, may_commit = threading.Event(), threading.Event()

    def settle_slowly(tx: Transaction) -> None:
        attempts.settle_attempts(tx, [ended(child)], principal="test")
        tx.fetch_one("current_instant")  # what was sent has arrived
        has_settled.set()
        may_commit.wait(HOLD_SECONDS)

    ending = threading.Thread(target=db.transaction_blocking, args=(settle_slowly,))
    ending.start()
    has_settled.wait()
    sleeping = threading.Thread(target=suspend, args=(db, parent, Wait("child", child.run_id, "all")))
    sleeping.start()
    sleeping.join(HOLD_SECONDS / 4)
    may_commit.set()
    ending.join()
    sleeping.join()

    assert is_awake(db, parent.run_id)


def test_a_signal_that_comes_unseen_while_the_run_goes_to_sleep_wakes_it(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    has_settled, may_commit = threading.Event(), threading.Event()

    def suspend_slowly(tx: Transaction) -> None:
        waits = (Wait("signal", "go", "g"),)
        attempts.settle_attempts(tx, [ended(run, "suspended", waits=waits)], principal="test")
        tx.fetch_one("current_instant")
        has_settled.set()
        may_commit.wait(HOLD_SECONDS)

    sleeping = threading.Thread(target=db.transaction_blocking, args=(suspend_slowly,))
    sleeping.start()
    has_settled.wait()
    sending = threading.Thread(target=send, args=(db, run.run_id, "go"))
    sending.start()
    sending.join(HOLD_SECONDS / 4)
    may_commit.set()
    sleeping.join()
    sending.join()

    assert is_awake(db, run.run_id)


def at_once(*works: Callable[[], object]) -> None:
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
