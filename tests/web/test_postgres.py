"""The HTTP side on PostgreSQL: one way through everything that asks the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pilothouse.config import load_settings
from pilothouse.control.runs import Submitter
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from pilothouse.web.server import create_server
from tests.web.documented import documented_client
from tests.web.events import read_until_end, serving
from tests.web.platform import FakeWorker, agent_card

RUNS = "/api/v1/runs"


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    db = open_database(postgres_url)
    db.start()
    migrate(db)
    yield db
    db.close()


async def test_a_run_goes_its_way_over_http(postgres: Database, postgres_url: str) -> None:
    db = postgres
    worker, stopping = FakeWorker(db), asyncio.Event()
    await worker.start(agent_card())
    app = create_server(db, Submitter(db), load_settings(database_url=postgres_url), stopping)

    async with documented_client(app) as api, serving(app) as url:
        body = {"agent": "hello", "input": {"name": "Ada"}, "lane": "low", "idempotency_key": "k"}
        submitted = await api.post(RUNS, json=body)
        again = await api.post(RUNS, json=body)
        batch = await api.post(f"{RUNS}:batch", json={"runs": [body | {"idempotency_key": None}, {"agent": "no"}]})
        run_id = submitted.json()["id"]
        for claimed in await worker.claim():
            await worker.log(claimed, "working")
            await worker.progress(claimed, 1, None)
            await worker.fail(claimed)
        redriven = await api.post(f"{RUNS}/{run_id}/redrive")
        cancelled = await api.post(f"{RUNS}/{run_id}/cancel")
        events = await read_until_end(f"{url}{RUNS}/{run_id}/events")
        paths = ["/ready", "/metrics", "/api/v1/overview", "/api/v1/dead?error_type=ValueError", "/api/v1/audit", RUNS]
        paths += [f"{RUNS}/{run_id}/timeline", f"{RUNS}/{run_id}/why", "/api/v1/agents", "/api/v1/workers"]
        statuses = [(await api.get(path)).status_code for path in paths]
        stopping.set()

    assert (submitted.status_code, again.json()["created"]) == (202, False)
    assert [each["status"] for each in batch.json()["runs"]] == [202, 422]
    assert (redriven.json()["state"], cancelled.json()["state"]) == ("queued", "cancelled")
    states = [event.data["state"] for event in events if event.name == "state"]
    assert states == ["queued", "running", "failed", "queued", "cancelled"]
    assert events[-1].name == "end"
    assert statuses == [200] * len(paths)
