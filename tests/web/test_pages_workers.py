"""The page of workers: live ones with what they hold, those that are gone, and the button that drains."""

from __future__ import annotations

import httpx2

from pilothouse.control import switches, workers
from pilothouse.control.switches import TripOrder
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.web.browsing import become, press, text_of
from tests.web.platform import FakeWorker


async def test_a_worker_shows_its_slots_and_what_runs(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    run = (await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})).json()["id"]
    await worker.claim_one()

    page = await api.get("/workers")

    assert f'href="/runs/{run}"' in page.text
    assert 'aria-label="1 of 8 slots in use"' in page.text
    assert "host pid 4711 live" in text_of(page)


async def test_a_worker_that_has_not_acknowledged_is_named(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    assert "has not acknowledged" not in text_of(await api.get("/workers"))

    await switches.trip_switch(db, TripOrder("global"), principal="test")

    assert "has not acknowledged the switches" in text_of(await api.get("/workers"))


async def test_a_worker_is_drained_and_then_gone(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    path = f"/workers/{worker.id}/drain"
    assert (await press(api, "/workers", path)).headers["location"] == "/workers"

    page = await api.get("/workers")
    assert "draining" in text_of(page)
    assert f'action="{path}"' not in page.text

    await db.transaction(lambda tx: workers.stop(tx, worker.id))
    assert "Gone lately" in text_of(await api.get("/workers"))
    assert "No worker is live" in text_of(await api.get("/workers"))


async def test_a_viewer_drains_nothing(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await become(api, db, KeyRole.VIEWER)

    assert "/drain" not in (await api.get("/workers")).text
    assert (await api.post(f"/workers/{worker.id}/drain", data={"form": "x"})).status_code == 403
