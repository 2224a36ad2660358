"""Large payloads: kept once, found wherever they are read, gone with the last run that holds them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pilothouse import App, Context, payloads
from pilothouse.control import blobs, checks, retention, runs
from pilothouse.control.runs import Submitted
from pilothouse.errors import Conflict
from pilothouse.store.database import Database
from pilothouse.testing import TestPlatform
from tests.control.steps import card, claim, ended, register, request, settle, start_worker, submit, submit_all

LARGE = {"text": "x" * blobs.LARGE}
OTHER = {"text": "y" * blobs.LARGE}
SMALL = {"text": "small"}


def stored(db: Database) -> dict[str, int]:
    (row,) = db.administer(
        lambda tx: tx.fetch_all(
            "SELECT (SELECT count(*) FROM blobs) AS blobs, (SELECT count(*) FROM blob_references) AS uses"
        )
    )
    return row


def age(db: Database) -> None:
    db.administer(lambda tx: tx.execute("UPDATE blobs SET used_at = 0"))


@pytest.fixture
def worker(database: Database) -> str:
    register(database, card("echo"))
    return start_worker(database)


def test_a_large_input_is_kept_once_and_given_to_the_worker(database: Database, worker: str) -> None:
    ids = [submit(database, input=value) for value in (LARGE, LARGE, SMALL, OTHER)]

    claimed = {run.run_id: payloads.decode(run.input) for run in claim(database, worker)}

    assert [claimed[id] for id in ids] == [LARGE, LARGE, SMALL, OTHER]
    assert stored(database) == {"blobs": 2, "uses": 3}
    shown = database.read_blocking(lambda tx: runs.run_in(tx, ids[0]))
    assert payloads.decode(shown["input"]) == LARGE


def test_a_key_knows_its_large_input_again(database: Database, worker: str) -> None:
    first, again, other = submit_all(
        database, *(request(input=value, idempotency_key="k") for value in (LARGE, LARGE, OTHER))
    )

    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (first.id, first.is_new, again.is_new) == (again.id, True, False)
    assert isinstance(other, Conflict)
    assert stored(database) == {"blobs": 1, "uses": 1}


async def test_results_outputs_and_children_come_back_whole(database_url: str) -> None:
    app = App("large")

    async def grow(size: int) -> dict[str, str]:
        return {"text": "x" * size}

    @app.agent
    async def leaf(ctx: Context, size: int) -> dict[str, str]:
        return await ctx.step("grow", grow, size)

    @app.agent
    async def tree(ctx: Context, size: int) -> list[Any]:
        own = await ctx.step("grow", grow, size)
        await ctx.sleep("nap", seconds=1)
        child = await ctx.start("leaf", {"size": size})
        return [own, await child.result()]

    async with TestPlatform(app, url=database_url) as platform:
        run_id = await platform.submit("tree", {"size": blobs.LARGE})
        await platform.run_until_idle()
        await platform.advance(seconds=2)
        await platform.run_until_idle()
        run, story = await platform.get(run_id), await platform.timeline(run_id)

        assert run["output"] == [LARGE, LARGE]
        assert story["steps"][0]["result"] == LARGE
        assert all(verdict.holds for verdict in await checks.check(platform.db, grace_us=10**12))


async def test_a_blob_goes_with_the_last_run_that_holds_it(database: Database, worker: str) -> None:
    first, second = submit(database, input=LARGE), submit(database, input=LARGE)
    pruner = retention.Pruner(database, keep_us=-10_000_000)

    settle(database, *(ended(run) for run in claim(database, worker) if run.run_id == first))
    age(database)
    await pruner.prune()
    assert stored(database) == {"blobs": 1, "uses": 1}

    (held,) = (run for run in database.read_blocking(lambda tx: tx.fetch_all("held_runs", worker_id=worker)))
    assert held["id"] == second
    database.administer(lambda tx: tx.execute("UPDATE blobs SET used_at = 9000000000000000"))
    settle(database, *(ended(run) for run in held_by(database, worker)))
    await pruner.prune()
    assert stored(database) == {"blobs": 1, "uses": 0}, "one that was just used is spared"
    age(database)
    await pruner.prune()
    assert stored(database) == {"blobs": 0, "uses": 0}


def held_by(db: Database, worker: str) -> Any:
    from pilothouse.control.outcomes import find_written

    return db.transaction_blocking(lambda tx: find_written(tx, worker, [], [])).held


def test_sweeping_beside_those_who_use_them_anew_loses_none(database: Database, worker: str) -> None:
    """One thread submits the same large input again and again, another sweeps what seems unused."""
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            database.transaction_blocking(blobs.sweep)

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    for _ in range(60):
        age(database)
        id = submit(database, input=LARGE)
        row = database.read_blocking(lambda tx, id=id: runs.run_in(tx, id))  # type: ignore[misc]
        assert payloads.decode(row["input"]) == LARGE
        database.administer(lambda tx: tx.execute("DELETE FROM blob_references"))
        database.administer(lambda tx: tx.execute("DELETE FROM runs"))
    done.set()
    sweeping.join()
