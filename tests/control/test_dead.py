"""Dead letters: listed until somebody redrives or dismisses them, singly or by filter."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse import payloads
from pilothouse.control import dead
from pilothouse.control.dead import DeadFilter
from pilothouse.errors import Conflict, InvalidInput
from pilothouse.store.database import Database, Row
from tests.control.steps import checkpoint, claim, ended, run_of, settle, state_of, submit, write


def fail(db: Database, worker: str, agent: str = "echo") -> str:
    run_id = submit(db, agent, {"name": "Ada"} if agent == "greet" else None)
    (run,) = claim(db, worker, agents=(agent,))
    write(db, checkpoint(run, "done"))
    settle(db, ended(run, "fatal"))
    return run_id


def dead_ids(db: Database, **wanted: str) -> list[str]:
    return [row["id"] for row in asyncio.run(dead.list_dead(db, DeadFilter(**wanted)))]


def test_failed_runs_are_listed_newest_first_and_by_filter(db: Database, worker: str) -> None:
    first, second, other = fail(db, worker), fail(db, worker), fail(db, worker, "other")

    assert dead_ids(db) == [other, second, first]
    assert dead_ids(db, agent="echo") == [second, first]
    assert dead_ids(db, error_type="ValueError") == [other, second, first]
    assert dead_ids(db, error_type="Value") == []


def test_redriving_gives_fresh_attempts_and_keeps_finished_steps(db: Database, worker: str) -> None:
    run_id = fail(db, worker)

    asyncio.run(dead.redrive_run(db, run_id, principal="test"))

    row = run_of(db, run_id)
    assert (row["state"], row["failures"], row["losses"], row["error"]) == ("queued", 0, 0, None)
    assert keys(db, run_id) == ["done"]
    assert dead_ids(db) == []
    (again,) = claim(db, worker)
    assert again.attempt == 2


def test_redriving_from_the_start_forgets_the_steps(db: Database, worker: str) -> None:
    run_id = fail(db, worker)

    asyncio.run(dead.redrive_run(db, run_id, principal="test", start_from="start"))

    assert keys(db, run_id) == []


def test_redriving_from_a_step_forgets_it_and_what_came_after(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)
    for number, key in enumerate(("first", "second", "third")):
        made = checkpoint(run, key)
        began = made.started_at + number * 10
        write(db, made._replace(started_at=began, finished_at=began + 5))
    settle(db, ended(run, "fatal"))

    with pytest.raises(InvalidInput, match="no finished step 'fourth'"):
        asyncio.run(dead.redrive_run(db, run_id, principal="test", step="fourth"))
    asyncio.run(dead.redrive_run(db, run_id, principal="test", step="second", reason="fixed"))

    assert keys(db, run_id) == ["first"]
    (record,) = [row for row in records_of(db, run_id) if row["action"] == "run.redriven"]
    assert record["reason"] == "from step 'second': fixed"


def records_of(db: Database, run_id: str) -> list[Row]:
    return db.read_blocking(lambda tx: tx.fetch_all("audit_of_entity", entity_id=run_id, after=0, limit=100))


def test_dismissed_letters_stay_failed_but_are_dealt_with(db: Database, worker: str) -> None:
    run_id = fail(db, worker)

    asyncio.run(dead.dismiss_run(db, run_id, principal="test", reason="known"))

    assert dead_ids(db) == []
    assert state_of(db, run_id) == "failed"


def test_by_filter_every_letter_of_it_is_dealt_with_once(db: Database, worker: str) -> None:
    mine = [fail(db, worker) for _ in range(3)]
    other = fail(db, worker, "other")

    redriven = asyncio.run(dead.redrive_many(db, DeadFilter(agent="echo"), principal="test"))
    dismissed = asyncio.run(dead.dismiss_many(db, DeadFilter(), principal="test"))

    assert (redriven, dismissed) == (3, 1)
    assert {state_of(db, run_id) for run_id in mine} == {"queued"}
    assert state_of(db, other) == "failed"


def test_only_failed_runs_can_be_redriven_or_dismissed(db: Database) -> None:
    run_id = submit(db)

    with pytest.raises(Conflict, match="only a failed run can be redriven"):
        asyncio.run(dead.redrive_run(db, run_id, principal="test"))
    with pytest.raises(Conflict, match="only a failed run can be dismissed"):
        asyncio.run(dead.dismiss_run(db, run_id, principal="test"))


def keys(db: Database, run_id: str) -> list[str]:
    rows = db.read_blocking(lambda tx: tx.fetch_all("checkpoints_of_run", run_id=run_id))
    assert all(payloads.decode(row["result"]) == 1 for row in rows)
    return [row["key"] for row in rows]
