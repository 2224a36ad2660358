"""Server-sent events, from a real server: in order, resumable, woken by hints, ended by the run or by the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.control import watching
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.web import streams
from tests.patience import WAIT_SECONDS
from tests.web.events import read_until_end, reading, serving
from tests.web.platform import FakeWorker

RUNS = "/api/v1/runs"


@pytest.fixture
async def url(app: FastAPI, stopping: asyncio.Event) -> AsyncIterator[str]:
    async with serving(app) as url:
        yield url
        stopping.set()


async def submit(api: httpx2.AsyncClient) -> str:
    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})
    return str(response.json()["id"])


async def test_a_stream_tells_a_run_from_its_beginning_to_its_end(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    run_id = await submit(api)
    async with reading(f"{url}{RUNS}/{run_id}/events") as events:
        first = await anext(events)
        claimed = await worker.claim_one()
        await worker.log(claimed, "working")
        await worker.progress(claimed, 1, 2)
        told = [await anext(events) for _ in range(3)]
        await worker.settle(claimed, output='"hello"')
        rest = [event async for event in events]

    assert (first.name, first.data["state"]) == ("state", "queued")
    by_name = {event.name: event.data for event in told}
    assert by_name["state"]["state"] == "running"
    assert (by_name["log"]["message"], by_name["log"]["fields"]) == ("working", {"n": 1})
    assert by_name["progress"] == {"done": 1, "total": 2}
    assert [(event.name, event.data["state"]) for event in rest] == [("state", "succeeded"), ("end", "succeeded")]
    assert rest[-1].data["output"] == "hello"


async def test_a_stream_resumes_behind_any_event(url: str, api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    claimed = await worker.claim_one()
    for message in ("one", "two", "three"):
        await worker.log(claimed, message)
    await worker.settle(claimed)
    whole = await read_until_end(f"{url}{RUNS}/{run_id}/events")

    for place, event in enumerate(whole[:-1]):
        resumed = await read_until_end(f"{url}{RUNS}/{run_id}/events", event.id)
        assert resumed == whole[place + 1 :], event

    assert [event.name for event in whole] == ["state", "state", "log", "log", "log", "state", "end"]


async def test_more_news_than_one_look_takes_come_whole(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "NEWS_LIMIT", 2)
    run_id = await submit(api)
    claimed = await worker.claim_one()
    for n in range(7):
        await worker.log(claimed, f"line {n}")
    await worker.settle(claimed)

    events = await read_until_end(f"{url}{RUNS}/{run_id}/events")

    assert [event.data["message"] for event in events if event.name == "log"] == [f"line {n}" for n in range(7)]
    assert [event.data["after"] for event in events if event.name == "state"] == ["queued", "running", "succeeded"]
    assert events[-1].name == "end"


async def test_a_cancel_that_is_not_proved_yet_shows_as_cancelling(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    run_id = await submit(api)
    claimed = await worker.claim_one()
    await api.post(f"{RUNS}/{run_id}/cancel")
    await worker.settle(claimed, "cancelled")

    events = await read_until_end(f"{url}{RUNS}/{run_id}/events")

    assert [event.data["state"] for event in events] == ["queued", "running", "cancelling", "cancelled", "cancelled"]


async def test_a_stream_outlives_an_outage_of_the_database(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await submit(api)
    real, is_asked = watching.news_of_run, asyncio.Event()

    async def away(*_: Any) -> None:
        is_asked.set()
        raise StoreUnavailable("gone")

    monkeypatch.setattr(watching, "news_of_run", away)
    async with reading(f"{url}{RUNS}/{run_id}/events") as events:
        await is_asked.wait()
        monkeypatch.setattr(watching, "news_of_run", real)
        first = await anext(events)

    assert first.data["state"] == "queued"


async def test_the_poll_is_the_truth_where_no_hint_comes(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.Pulse, "hint", lambda pulse: None)
    run_id = await submit(api)

    async with reading(f"{url}{RUNS}/{run_id}/events") as events:
        await anext(events)
        await worker.claim_one()
        second = await anext(events)

    assert second.data["state"] == "running"


async def test_streams_end_when_the_server_stops(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, stopping: asyncio.Event
) -> None:
    run_id = await submit(api)
    async with reading(f"{url}{RUNS}/{run_id}/events") as run, reading(f"{url}/api/v1/events") as all_events:
        await anext(run)
        stopping.set()
        rest = [event async for event in run], [event async for event in all_events]

    assert rest == ([], [])


async def test_the_global_stream_begins_at_the_present(url: str, api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await submit(api)
    async with reading(f"{url}/api/v1/events") as events:
        run_id = await submit(api)
        told = await anext(events)

    assert (told.name, told.data["action"], told.data["entity_id"]) == ("audit", "run.submitted", run_id)
    assert told.id == str(told.data["seq"])


async def test_the_global_stream_resumes_and_filters(url: str, api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    runs = [await submit(api) for _ in range(3)]
    await worker.claim()
    async with reading(f"{url}/api/v1/events?action=run.submitted", last_event_id="0") as events:
        first, second = await anext(events), await anext(events)
    async with reading(f"{url}/api/v1/events", last_event_id=second.id) as events:
        third, fourth = await anext(events), await anext(events)

    assert [event.data["entity_id"] for event in (first, second, third)] == runs
    assert fourth.data["action"] == "run.claimed"


@pytest.mark.parametrize("last_event_id", ["7", "1.2.3", "a.b", "-1.0", f"{2**70}.0", ""])
async def test_a_foreign_last_event_id_is_refused(
    api: httpx2.AsyncClient, worker: FakeWorker, last_event_id: str
) -> None:
    run_id = await submit(api)

    response = await api.get(f"{RUNS}/{run_id}/events", headers={"Last-Event-ID": last_event_id})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["Last-Event-ID"]


async def test_an_idle_stream_is_kept_alive(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_SECONDS", 0.01)
    async with (
        httpx2.AsyncClient() as client,
        client.stream("GET", f"{url}/api/v1/events") as response,
        asyncio.timeout(WAIT_SECONDS),
    ):
        first = await anext(response.aiter_lines())

    assert first.startswith(":")


async def test_a_reader_that_leaves_is_forgotten(
    url: str, api: httpx2.AsyncClient, worker: FakeWorker, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await submit(api)
    is_forgotten, listen = asyncio.Event(), db.listen

    def counted(callback: Callable[[str], None]) -> Callable[[], None]:
        stop = listen(callback)

        def forget() -> None:
            stop()
            is_forgotten.set()

        return forget

    monkeypatch.setattr(db, "listen", counted)
    async with reading(f"{url}{RUNS}/{run_id}/events") as events:
        await anext(events)

    async with asyncio.timeout(WAIT_SECONDS):
        await is_forgotten.wait()
