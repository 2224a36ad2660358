"""Lists of runs by filter: the same runs whichever index is walked, and bounded pages that lead on to the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse.control import bulk, run_lists
from pilothouse.control.bulk import Choice, Order
from pilothouse.control.run_lists import Filter
from pilothouse.store.database import Database
from tests.control.steps import claim, ended, settle, state_of, submit


def found(db: Database, *, limit: int = 50, **wanted: Any) -> list[str]:
    """The runs of a filter, over all pages."""
    ids: list[str] = []
    after: str | None = None
    for _ in range(100):
        page = asyncio.run(run_lists.list_runs(db, Filter(**wanted), after=after, limit=limit))
        ids += [row["id"] for row in page.rows]
        after = page.next
        if after is None:
            return ids
    raise AssertionError("the pages lead nowhere")


@pytest.fixture
def runs(db: Database, worker: str) -> dict[str, str]:
    """A run in each place that a list walks over."""
    ids = {"done": submit(db, input={"text": 'She said "50%_off"'}), "failed": submit(db, tenant="acme")}
    for run in claim(db, worker):
        settle(db, ended(run) if run.run_id == ids["done"] else ended(run, "fatal"))
    ids["running"] = submit(db, lane="low", input={"text": "Grüße"})
    claim(db, worker)
    ids["other"] = submit(db, "other")
    ids["queued"] = submit(db, tenant="acme", lane="critical", input={"text": "hello there"})
    return ids


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["queued", "other", "running", "failed", "done"]),
        ({"state": "succeeded"}, ["done"]),
        ({"state": "failed"}, ["failed"]),
        ({"state": "running"}, ["running"]),
        ({"state": "queued"}, ["queued", "other"]),
        ({"state": "waiting"}, []),
        ({"agent": "echo"}, ["queued", "running", "failed", "done"]),
        ({"agent": "echo", "state": "queued"}, ["queued"]),
        ({"tenant": "acme"}, ["queued", "failed"]),
        ({"tenant": "default", "lane": "low"}, ["running"]),
        ({"tenant": "acme", "state": "failed", "agent": "other"}, []),
        ({"text": "HELLO"}, ["queued"]),
        ({"text": "ello th", "agent": "other"}, []),
        ({"text": 'said "50%_'}, ["done"]),
        ({"text": "50_"}, []),
        ({"text": "Grüße"}, ["running"]),
        ({"text": "valueerror"}, ["failed"]),
        ({"version": "no such"}, []),
        ({"created_before": 1}, []),
        ({"created_after": 1, "lane": "critical"}, ["queued"]),
    ],
)
def test_a_filter_finds_its_runs_in_whole_and_in_small_pages(
    db: Database, runs: dict[str, str], wanted: dict[str, Any], names: list[str]
) -> None:
    ids = [runs[name] for name in names]

    assert found(db, **wanted) == ids
    assert found(db, limit=1, **wanted) == ids


def test_a_page_walks_over_a_bounded_number_and_says_how_far(
    db: Database, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WINDOW", "SELDOM_WINDOW", "TEXT_WINDOW"):
        monkeypatch.setattr(run_lists, name, 2)

    page = asyncio.run(run_lists.list_runs(db, Filter(text="50%")))

    assert (page.rows, page.next) == ([], runs["other"])
    assert page.searched_back_to is not None
    assert found(db, text="50%") == [runs["done"]]
    assert found(db, agent="echo", lane="normal", limit=1) == [runs["failed"], runs["done"]]
    assert found(db, tenant="acme", state="failed") == [runs["failed"]]


def test_what_a_verb_applies_to_is_done_and_what_is_refused_leaves_the_others(
    db: Database, runs: dict[str, str]
) -> None:
    chosen = asyncio.run(bulk.choose(db, "cancel", Choice(Filter(agent="echo"))))
    assert {row["id"] for row in chosen.rows} == {runs["queued"], runs["running"]}

    ids = [runs["queued"], runs["done"], "nobody"]
    done = asyncio.run(bulk.carry_out(db, Order("cancel", "test"), ids))
    assert [(each.id, each.is_done) for each in done] == [(id, id == runs["queued"]) for id in ids]
    assert "succeeded already" in done[1].told
    assert state_of(db, runs["queued"]) == "cancelled"

    assert asyncio.run(bulk.choose(db, "redrive", Choice(error_type="KeyError"))).rows == []
    (letter,) = asyncio.run(bulk.choose(db, "redrive", Choice(Filter(text="value"), error_type="ValueError"))).rows
    (refused,) = asyncio.run(bulk.carry_out(db, Order("redrive", "test", tenant="default"), [letter["id"]]))
    assert (refused.is_done, "there is no run" in refused.told) == (False, True)
    assert asyncio.run(bulk.carry_out(db, Order("dismiss", "test", tenant="acme"), [letter["id"]]))[0].is_done
    assert asyncio.run(bulk.choose(db, "redrive", Choice())).rows == []


def test_more_than_is_done_at_once_is_said(db: Database, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST", 2)

    chosen = asyncio.run(bulk.choose(db, "cancel", Choice()))

    assert (len(chosen.rows), chosen.has_more) == (2, True)
    named = asyncio.run(bulk.choose(db, "cancel", Choice(Filter(tenant="acme"), tuple(runs.values()))))
    assert (named.rows, named.has_more) == ([], True)
