"""The first page: what it says, that its charts count, and how little of it travels."""

from __future__ import annotations

import gzip
import json
import re
from html import unescape
from typing import Any

import httpx2

from pilothouse.control import history, leases
from pilothouse.store.database import Database
from tests.web.browsing import MARKUP, text_of
from tests.web.platform import FakeWorker

MOST_BYTES = 150_000


async def submit(api: httpx2.AsyncClient, count: int = 1) -> None:
    for _ in range(count):
        answer = await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})
        assert answer.status_code == 202


def chart(page: httpx2.Response, name: str) -> dict[str, Any]:
    found = re.search(rf'id="{name}" data-chart="([^"]*)"', page.text)
    assert found is not None
    facts: dict[str, Any] = json.loads(unescape(found[1]))
    return facts


async def test_the_charts_count_what_ended_and_what_is_queued(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await history.sample(db)
    await submit(api, 3)
    await worker.settle((await worker.claim())[0])
    await submit(api, 2)
    await history.sample(db)

    page = await api.get("/")

    ended, depth = chart(page, "throughput"), chart(page, "depth")
    assert [len(each["values"]) for each in (*ended["series"], *depth["series"])] == [61] * 3
    assert sum(value or 0 for value in ended["series"][0]["values"]) == 1
    assert {each["name"]: each["values"][-1] for each in depth["series"]} == {"queued": 2, "running": 2}
    assert "1 succeeded, 0 failed" in text_of(page)


async def test_lanes_come_first_then_agents_with_their_day(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await history.sample(db)
    await submit(api, 4)
    runs = await worker.claim()
    await worker.settle(runs[0])
    await worker.fail(runs[1])
    await history.sample(db)

    text = text_of(await api.get("/"))

    assert re.search(r"Lanes .* normal 0 \S 2 0", text)
    assert re.search(r"Agents .* hello normal 0 \S 2 0 2 50\.0% \$0\.00 no limit", text)
    assert text.index("Lanes") < text.index("Of its daily limit") < text.index("Latest runs")


async def test_all_is_well_only_while_nothing_is_stopped(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    assert await leases.hold(db, "janitor", "test", lease_us=60_000_000)  # as a scheduler does
    assert "All is well" in text_of(await api.get("/"))
    await api.post("/api/v1/switches", json={"scope": "agent:hello", "reason": "it shouts"})

    text = text_of(await api.get("/"))

    assert "All is well" not in text
    assert re.search("needs a look .* Stopped: agent:hello .* it shouts", text)


async def test_what_failed_is_text(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await submit(api)
    await worker.fail(await worker.claim_one(), MARKUP)

    page = await api.get("/")

    assert MARKUP not in page.text
    assert MARKUP in text_of(page)


async def test_the_page_and_all_it_loads_weigh_little_and_travel_once(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    await submit(api, 20)
    page = await api.get("/")
    loaded = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))
    (script,) = (name for name in loaded if name.endswith("/app.js"))
    imports = re.findall(r'from "\./([\w.]+)"', (await api.get(script)).text)
    loaded |= {script.replace("app.js", name) for name in imports}

    octets = len(gzip.compress(page.content, 5))
    for name in loaded:
        answer = await api.get(name, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"], name
        octets += len(gzip.compress(answer.content, 9))

    assert imports
    assert octets < MOST_BYTES
