"""The waterfall as it is read from the run log, on both stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse.control import signals
from pilothouse.control.waits import Wait
from pilothouse.control.waterfall import waterfall_of
from pilothouse.errors import NotFound
from pilothouse.store.database import Database
from tests.control.steps import checkpoint, claim, ended, request, settle, submit, write


def read(db: Database, run_id: str) -> dict[str, Any]:
    return asyncio.run(waterfall_of(db, run_id))


def test_a_run_with_a_step_a_child_a_signal_and_an_end(db: Database, worker: str) -> None:
    run_id = submit(db)
    (first,) = claim(db, worker)
    assert write(db, checkpoint(first, "work"), checkpoint(first, "kid", children=(request("other"),))) == [None, None]
    settle(db, ended(first, "suspended", waits=(Wait("signal", "go", "g"),)))
    asyncio.run(signals.send_signal(db, run_id, "go", None, principal="test"))
    (second,) = claim(db, worker)
    settle(db, ended(second))

    found = read(db, run_id)

    tops = [(span["kind"], span["name"]) for span in found["spans"] if span["depth"] == 0 and span["kind"] != "queue"]
    assert tops == [("attempt", "attempt 1"), ("wait", "signal go"), ("attempt", "attempt 2")]
    assert {(span["kind"], span["name"]) for span in found["spans"] if span["depth"] == 1} >= {("step", "work")}
    assert (found["state"], found["is_cut"]) == ("succeeded", False)
    assert found["total_us"] == sum(found["where_time_went"].values())


def test_a_run_that_waits_has_no_end(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)
    settle(db, ended(run, "suspended", waits=(Wait("signal", "go", "g"),)))

    found = read(db, run_id)

    assert (found["ended_at"], found["spans"][-1]["name"], found["spans"][-1]["ended_at"]) == (None, "signal go", None)


def test_a_run_that_is_not_there(db: Database) -> None:
    with pytest.raises(NotFound):
        read(db, "nothing")
