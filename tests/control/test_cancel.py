"""Cancelling: idle runs end at once, running ones when their worker has proved it, and the lineage goes along."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.control import cancels
from pilothouse.control.cancels import Lineage
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


def three_generations(db: Database, worker: str) -> tuple[str, str, str]:
    """A root that has succeeded, its child that runs, and a grandchild that is queued."""
    root = submit(db)
    (parent,) = claim(db, worker)
    write(db, checkpoint(parent, "c", children=(request("other", parent_id=root, root_id=root),)))
    (child,) = claim(db, worker, agents=("other",))
    grandchild = request("greet", {"name": "Ada"}, parent_id=child.run_id, root_id=root)
    write(db, checkpoint(child, "c", children=(grandchild,)))
    settle(db, ended(parent))
    return root, child.run_id, grandchild.id


def lineage(db: Database, run_id: str, *, dry_run: bool = False) -> Lineage:
    return asyncio.run(cancels.cancel_whole_lineage(db, run_id, principal="test", reason="loop", dry_run=dry_run))


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_lineage_is_cancelled_from_any_of_its_members(db: Database, worker: str, member: int) -> None:
    family = three_generations(db, worker)
    bystander = submit(db)
    root, child, grandchild = family

    planned = lineage(db, family[member], dry_run=True)
    assert (planned.root_id, [row["id"] for row in planned.runs]) == (root, [child, grandchild])
    assert [row["state"] for row in planned.runs] == ["running", "queued"]
    assert (state_of(db, child), state_of(db, grandchild)) == ("running", "queued")

    done = lineage(db, family[member])

    assert [shown_state(row) for row in done.runs] == ["cancelling", "cancelled"]
    assert (state_of(db, root), state_of(db, bystander)) == ("succeeded", "queued")
    assert actions_of(db, grandchild)[-1] == "run.cancelled"
    assert shown_state(run_of(db, child)) == "cancelling"


def test_a_dry_run_of_one_run_tells_what_it_started(db: Database, worker: str) -> None:
    _, child, grandchild = three_generations(db, worker)

    planned = asyncio.run(cancels.plan_cancel(db, grandchild))

    assert [row["id"] for row in planned.runs] == [grandchild]
    assert [row["id"] for row in asyncio.run(cancels.plan_cancel(db, child)).runs] == [child, grandchild]


def test_the_reservations_of_a_lineage_are_listed(db: Database, worker: str) -> None:
    _, child, grandchild = three_generations(db, worker)
    columns = "id, state, run_id, key, attempt, tenant, agent, day, month, microusd, tokens, actions, created_at"
    for id, state, run_id in (("a", "held", child), ("b", "settled", child), ("c", "held", submit(db))):
        values = f"'{id}', '{state}', '{run_id}', 'k', 1, 'default', 'other', 'd', 'm', 7, 8, 1, 5"
        insert = f"INSERT INTO reservations ({columns}) VALUES ({values})"
        db.administer(lambda tx, insert=insert: tx.execute(insert))  # type: ignore[misc]

    planned = lineage(db, grandchild, dry_run=True)

    assert [(row["id"], row["run_id"], row["microusd"]) for row in planned.reservations] == [("a", child, 7)]
    db.administer(lambda tx: tx.execute("DELETE FROM reservations"))


def test_a_lineage_that_has_ended_leaves_nothing_to_cancel(db: Database, worker: str) -> None:
    done = submit(db)
    settle(db, *(ended(run) for run in claim(db, worker)))

    assert lineage(db, done, dry_run=True).runs == []
    with pytest.raises(Conflict, match="has ended already"):
        lineage(db, done)
    with pytest.raises(NotFound):
        lineage(db, "nobody")
