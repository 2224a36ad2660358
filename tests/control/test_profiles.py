"""Profiles add up what the runs of a period have taken, page by page, on both stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse.control import profiles, runs
from pilothouse.control.profiles import PAGE, Period
from pilothouse.control.waits import Wait
from pilothouse.domain.profiles import By
from pilothouse.errors import InvalidInput
from pilothouse.store.database import Database
from tests.control.steps import checkpoint, claim, demand, ended, request, settle, submit, submit_all, write


def report(db: Database, period: Period | None = None, *, by: By | None = None, most: int = 1000) -> dict[str, Any]:
    return asyncio.run(profiles.report(db, period or Period(), by=by, most=most))


def test_runs_steps_and_waits_are_added_up_over_many_pages(db: Database, worker: str) -> None:
    submit_all(db, *(request() for _ in range(PAGE + 5)))
    runs = claim(db, worker, wanted=demand(normal=PAGE + 5))
    for number, run in enumerate(runs):
        assert write(db, checkpoint(run, f"item-{number}")) == [None]
    settle(db, *(ended(run, "fatal" if number == 0 else "succeeded") for number, run in enumerate(runs)))

    found = report(db)

    (agent,), (step,), (wait,) = found["by_agent"], found["by_step"], found["by_wait"]
    assert (found["runs"], found["is_cut"]) == (PAGE + 5, False)
    assert (agent["agent"], agent["count"], agent["failed"]) == ("echo", PAGE + 5, 1)
    assert (step["step"], step["count"]) == ("echo item-N", PAGE + 5)
    assert (wait["wait"], wait["count"]) == ("echo queue", PAGE + 5)
    assert found["us"] == agent["us"] == sum(found["where_time_went"].values())


def test_more_runs_than_are_to_be_read_are_told(db: Database) -> None:
    ids = [submit(db) for _ in range(4)]

    found = report(db, most=2)

    assert (found["runs"], found["is_cut"]) == (2, True)
    assert report(db, Period(until=asyncio.run(_created(db, ids[1]))))["runs"] == 1
    assert report(db, Period(since=asyncio.run(_created(db, ids[3]))))["runs"] == 1
    assert report(db, Period(agent="other"))["runs"] == 0


async def _created(db: Database, run_id: str) -> int:
    return await db.read(lambda tx: int(runs.run_in(tx, run_id)["created_at"]))


def test_one_group_is_told_alone(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    settle(db, ended(run, "suspended", waits=(Wait("signal", "go", "g"),)))

    found = report(db, by="wait")

    assert {name for name in found if name.startswith("by_")} == {"by_wait"}
    assert {line["wait"] for line in found["by_wait"]} >= {"echo signal go"}


def test_a_period_that_ends_before_it_begins_is_refused(db: Database) -> None:
    with pytest.raises(InvalidInput, match="ends before"):
        report(db, Period(since=2, until=1))
