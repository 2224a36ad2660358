"""Cancelling: idle runs end at once, running ones when their worker has proved it, and the lineage goes along."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.control import cancels
from pilothouse.control.views import shown_state
from pilothouse.errors import Conflict, NotFound
from pilothouse.store.database import Database
from tests.control.steps import (
    actions_of,
    checkpoint,
    claim,
    ended,
    reap,
    request,
    run_of,
    settle,
    state_of,
    submit,
    write,
)


def cancel(db: Database, run_id: str) -> str:
    return shown_state(asyncio.run(cancels.cancel_run(db, run_id, principal="test", reason="not wanted")))


def test_a_queued_run_ends_at_once(db: Database, worker: str) -> None:
    run_id = submit(db)

    assert cancel(db, run_id) == "cancelled"

    assert claim(db, worker) == []
    assert actions_of(db, run_id) == ["run.submitted", "run.cancelled"]


@pytest.mark.parametrize("ending", ["failed", "fatal", "suspended", "snoozed", "released", "cancelled"])
def test_a_running_run_shows_cancelling_and_goes_on_no_more(db: Database, worker: str, ending: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)

    assert cancel(db, run_id) == "cancelling"
    settle(db, ended(run, ending))  # type: ignore[arg-type]

    assert state_of(db, run_id) == "cancelled"


def test_a_run_that_succeeds_before_the_cancel_reaches_it_has_succeeded(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)
    cancel(db, run_id)

    settle(db, ended(run))

    assert state_of(db, run_id) == "succeeded"


def test_a_cancelling_run_whose_worker_vanishes_is_cancelled(db: Database, worker: str) -> None:
    run_id = submit(db)
    claim(db, worker)
    cancel(db, run_id)

    reap(db, worker)

    assert state_of(db, run_id) == "cancelled"


def test_descendants_of_every_generation_go_along(db: Database, worker: str) -> None:
    root = submit(db)
    (parent,) = claim(db, worker)
    write(db, checkpoint(parent, "c", children=(request("other", parent_id=root),)))
    (child,) = claim(db, worker, agents=("other",))
    grandchild = request("greet", {"name": "Ada"}, parent_id=child.run_id)
    write(db, checkpoint(child, "c", children=(grandchild,)))

    cancel(db, root)

    assert shown_state(run_of(db, child.run_id)) == "cancelling"
    assert state_of(db, grandchild.id) == "cancelled"


def test_a_child_started_while_its_parent_is_cancelling_goes_along_at_the_end(db: Database, worker: str) -> None:
    root = submit(db)
    (parent,) = claim(db, worker)
    cancel(db, root)
    late = request("other", parent_id=root)
    assert write(db, checkpoint(parent, "c", children=(late,))) == [None]

    settle(db, ended(parent, "cancelled"))

    assert state_of(db, late.id) == "cancelled"


def test_cancelling_twice_is_the_same_and_an_ended_run_is_a_conflict(db: Database, worker: str) -> None:
    cancelled = submit(db)
    cancel(db, cancelled)
    done = submit(db)
    settle(db, *(ended(run) for run in claim(db, worker)))

    assert cancel(db, cancelled) == "cancelled"
    with pytest.raises(Conflict, match="succeeded already"):
        cancel(db, done)
    with pytest.raises(NotFound):
        cancel(db, "nobody")
