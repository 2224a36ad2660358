"""What a person looks at who opens one run, on both databases: cut where it is long, whole on request."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse import payloads
from pilothouse.control import run_pages
from pilothouse.errors import NotFound
from pilothouse.store.database import Database
from tests.control.steps import checkpoint, claim, ended, request, run_of, settle, submit, write

HUGE = "é" * 100_000


def test_a_run_is_looked_at_with_its_steps_and_family(db: Database, worker: str) -> None:
    run_id = submit(db, tenant="acme", input={"text": HUGE})
    (run,) = claim(db, worker)
    short = checkpoint(run, "short", {"a": 1})
    huge = checkpoint(run, "huge", HUGE)._replace(started_at=short.started_at + 1)
    below = checkpoint(run, "below", children=(request("other", parent_id=run_id, root_id=run_id, tenant="acme"),))
    write(db, short, huge, below)
    settle(db, ended(run, "fatal"))

    found = asyncio.run(run_pages.look(db, run_id, tenant="acme"))

    assert found["run"]["input"] == {"text": HUGE}
    assert [step["key"] for step in found["steps"].values()][-1] == "huge"
    assert found["steps"]["short"]["result"] == '{"a":1}'
    cut = found["steps"]["huge"]
    assert (len(cut["result"]), cut["result_length"]) == (run_pages.TEXT_SHOWN, len(HUGE) + 2)
    assert cut["result"][:3] == '"éé'
    assert [each["parent_id"] for each in found["family"]] == [None, run_id]
    assert found["attempts"][0]["state"] == "failed"
    child = found["family"][1]["id"]
    assert len(asyncio.run(run_pages.look(db, child, tenant=None))["family"]) == 2

    assert payloads.decode(text(db, run_id, "result", "huge")) == HUGE
    assert payloads.decode(text(db, run_id, "input")) == {"text": HUGE}
    assert "ValueError" in text(db, run_id, "error")
    missing: tuple[tuple[run_pages.Text, str | None], ...] = (
        *(("output", None), ("result", "none"), ("request", None), ("input", "short"), ("error", "short")),
    )
    for name, key in missing:
        with pytest.raises(NotFound):
            text(db, run_id, name, key)
    with pytest.raises(NotFound, match="there is no run"):
        asyncio.run(run_pages.look(db, run_id, tenant="globex"))
    assert run_of(db, run_id)["state"] == "failed"


def text(db: Database, run_id: str, name: run_pages.Text, key: str | None = None) -> str:
    return asyncio.run(run_pages.whole_text(db, run_id, name, key=key, tenant="acme"))
