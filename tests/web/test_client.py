"""Both clients against a running platform: the same verbs, the same errors, and patience where it is safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pilothouse import App, AsyncClient, Client, Context
from pilothouse.client import EventReader, error_of
from pilothouse.config import load_settings
from pilothouse.domain.retries import Backoff
from pilothouse.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    StoreUnavailable,
    TryLater,
)
from pilothouse.platform import Platform
from pilothouse.store.migrations import migrate
from tests.patience import WAIT_SECONDS

app = App("clients")


@app.agent
async def double(ctx: Context, n: int) -> int:
    return 2 * n


@app.agent
async def patient(ctx: Context) -> Any:
    ctx.log("waiting")
    return await ctx.wait_for("go")


@app.agent(max_attempts=1, backoff=Backoff(first_seconds=0.0))
async def broken(ctx: Context) -> None:
    raise ValueError("no")


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    settings = load_settings(database_url=f"sqlite:///{tmp_path / 'store.db'}", port=0, poll_interval_ms=50)
    stop = asyncio.Event()
    async with Platform(settings, app) as platform:
        await asyncio.to_thread(migrate, platform.db)
        serving = asyncio.create_task(platform.serve(stop))
        async with AsyncClient(platform.url) as client:
            await until_known(client)
        yield platform.url
        stop.set()
        await serving


async def until_known(client: AsyncClient) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await client.submit("double", {"n": 0})
            except NotFound:
                await asyncio.sleep(0.01)
            else:
                return


async def in_thread(work: Any, *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(work, *arguments, **options)


async def test_both_clients_submit_and_wait(url: str) -> None:
    with Client(url) as client:
        run_id = (await in_thread(client.submit, "double", {"n": 21}))["id"]
        run = await in_thread(client.wait, run_id, timeout_seconds=WAIT_SECONDS)
        timeline = await in_thread(client.timeline, run_id)
    async with AsyncClient(url) as other:
        again = await other.wait((await other.submit("double", {"n": 4}))["id"])
        seen = await other.timeline(run_id)

    assert (run["state"], run["output"], again["output"]) == ("succeeded", 42, 8)
    assert timeline["run"]["id"] == seen["run"]["id"] == run_id


async def test_many_runs_have_an_answer_each(url: str) -> None:
    requests: list[dict[str, Any]] = [
        {"agent": "double", "input": {"n": 1}},
        {"agent": "double", "input": {}},
        {"agent": "nobody"},
    ]
    async with AsyncClient(url) as client:
        answers = await client.submit_many(requests)
    with Client(url) as blocking:
        same = await in_thread(blocking.submit_many, requests)

    assert [answer.get("status", 202) for answer in answers] == [answer.get("status", 202) for answer in same]
    assert "id" in answers[0]
    assert [answer["code"] for answer in answers[1:]] == ["invalid_input", "not_found"]


async def test_errors_are_those_of_the_verbs(url: str) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(NotFound, match="did you mean 'double'"):
            await client.submit("doubel", {"n": 1})
        with pytest.raises(InvalidInput) as refused:
            await client.submit("double", {"n": "x"})
        await client.submit("double", {"n": 1}, idempotency_key="k")
        with pytest.raises(Conflict):
            await client.submit("double", {"n": 2}, idempotency_key="k")
        with pytest.raises(NotFound):
            await client.get("nobody")

    assert [field.field for field in refused.value.fields] == ["input.n"]


async def test_options_reach_the_run(url: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    async with AsyncClient(url) as client:
        submitted = await client.submit(
            "double", {"n": 1}, lane="low", priority=3, at=at, tenant="acme", concurrency_key="c"
        )
        run = await client.get(submitted["id"])
        cancelled = await client.cancel(submitted["id"], reason="not needed")

    assert (run["lane"], run["priority"], run["tenant"], run["state"]) == ("low", 3, "acme", "queued")
    assert datetime.fromisoformat(run["available_at"]) == at
    assert run["concurrency_key"] == "c"
    assert cancelled["state"] == "cancelled"


async def test_both_clients_ask_for_costs_and_grant_more(url: str) -> None:
    async with AsyncClient(url) as client:
        run = await client.submit("patient")
        assert await client.costs("day", first=date(2026, 1, 1)) == []
        granted = await client.grant(run["id"], usd=50.0, reason="needed")
    with Client(url) as blocking:
        again = await in_thread(blocking.grant, run["id"], usd=50.0)
        assert await in_thread(blocking.costs) == []

    assert granted == again == {"run": run["id"], "unit": "microusd", "used": 0, "limit": 50_000_000, "waits": []}


async def test_signals_and_events_of_a_run(url: str) -> None:
    async with AsyncClient(url) as client:
        run_id = (await client.submit("patient"))["id"]
        names = []
        async with asyncio.timeout(WAIT_SECONDS):
            async for event in client.events(run_id):
                names.append(event.name)
                if event.name == "log":
                    assert await client.signal(run_id, "go", {"x": 1})

        assert event.name == "end"
        assert event.data["output"] == {"x": 1}
    with Client(url) as blocking:
        first = await in_thread(lambda: next(iter(blocking.events(run_id))))

    assert {"state", "log"} <= set(names)
    assert first.data["action"] == "run.submitted"


async def test_a_failed_run_is_redriven(url: str) -> None:
    with Client(url) as client:
        run_id = (await in_thread(client.submit, "broken"))["id"]
        failed = await in_thread(client.wait, run_id)
        redriven = await in_thread(client.redrive, run_id, reason="again")
    async with AsyncClient(url) as other:
        await other.wait(run_id)
        await other.redrive(run_id, start_from="start")

    assert (failed["state"], redriven["failures"]) == ("failed", 0)


async def test_waiting_gives_up_and_the_run_goes_on(url: str) -> None:
    async with AsyncClient(url) as client:
        run_id = (await client.submit("patient"))["id"]
        with pytest.raises(TimeoutError, match="it goes on"):
            await client.wait(run_id, timeout_seconds=0.01)
        await client.signal(run_id, "go", 1)

        assert (await client.wait(run_id))["output"] == 1


async def test_a_signal_may_have_any_name_that_one_part_of_a_path_can_carry(url: str) -> None:
    name = "paid? 100% #1"
    async with AsyncClient(url) as client:
        run_id = (await client.submit("patient"))["id"]

        assert await client.signal(run_id, name, 1)
        assert [each["name"] for each in (await client.timeline(run_id))["signals"]] == [name]
        await client.cancel(run_id)


async def test_an_id_leads_to_no_other_path(url: str) -> None:
    async with AsyncClient(url) as client:
        for run_id in ("../agents", "x/cancel", "nobody?limit=1"):
            with pytest.raises(Refused):
                await client.get(run_id)


async def test_what_json_cannot_carry_is_refused_before_it_is_sent(url: str) -> None:
    async with AsyncClient(url) as client:
        for value in (float("nan"), object()):
            with pytest.raises(InvalidInput, match="cannot be stored as JSON"):
                await client.submit("double", {"n": value})


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.client.PAUSE_SECONDS", (0.0,))

    with Client("http://127.0.0.1:9") as client, pytest.raises(StoreUnavailable, match="is `pilothouse up` running"):
        client.get("x")


def test_a_cut_stream_resumes_after_its_last_whole_event() -> None:
    reader = EventReader()
    lines = ["id: 7", "event: state", 'data: {"a":', "data: 1}", "", ": keep-alive", "id: 8", "event: state"]

    events = [event for line in lines if (event := reader.read(line))]
    reader.restart()

    assert [(event.id, event.name, event.data) for event in events] == [("7", "state", {"a": 1})]
    assert reader.headers == {"Last-Event-ID": "7"}
    assert reader.read("") is None


@pytest.mark.parametrize(("code", "kind"), [("queue_full", QueueFull), ("rate_limited", RateLimited)])
def test_who_is_told_to_wait_knows_how_long(code: str, kind: type[TryLater]) -> None:
    request = httpx2.Request("POST", "http://localhost/api/v1/runs")
    problem = {"detail": "too much", "code": code}
    answer = httpx2.Response(429, json=problem, headers={"Retry-After": "7"}, request=request)

    error = error_of(answer)

    assert type(error) is kind
    assert (str(error), error.retry_after_seconds) == ("too much", 7.0)
