"""Kill switches over HTTP."""

from __future__ import annotations

import httpx2
import pytest

from tests.web.platform import FakeWorker

URL = "/api/v1/switches"
RUN = {"agent": "hello", "input": {"name": "Ada"}}


@pytest.fixture
async def working(api: httpx2.AsyncClient, worker: FakeWorker) -> httpx2.AsyncClient:
    assert worker.id
    return api


async def test_a_switch_is_tripped_shown_and_reset(working: httpx2.AsyncClient, worker: FakeWorker) -> None:
    tripped = await working.post(URL, json={"scope": "agent:hello", "mode": "drain", "reason": "odd answers"})

    assert tripped.status_code == 200
    assert (tripped.json()["scope"], tripped.json()["mode"], tripped.json()["note"]) == ("agent:hello", "drain", None)
    shown = (await working.get(f"{URL}/agent:hello")).json()
    assert (shown["reason"], shown["epoch"], shown["silent"]) == ("odd answers", 1, [worker.id])
    listed = (await working.get(URL)).json()
    assert ([each["scope"] for each in listed["items"]], listed["live_workers"]) == (["agent:hello"], 1)
    assert (await working.get("/api/v1/overview")).json()["switches"] == listed["items"]

    reset = await working.delete(f"{URL}/agent:hello")
    assert (reset.status_code, reset.json()["released"]) == (200, 0)
    assert (await working.get(URL)).json()["items"] == []
    again = await working.delete(f"{URL}/agent:hello")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_what_is_refused_for_a_switch_says_so(working: httpx2.AsyncClient) -> None:
    await working.post(URL, json={"scope": "global", "mode": "abort", "reason": "incident 7"})

    refused = await working.post("/api/v1/runs", json=RUN)

    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (409, "switched_off")
    assert "switch global (abort), tripped by" in problem["detail"]
    assert "incident 7" in problem["detail"]
    (each,) = (await working.post("/api/v1/runs:batch", json={"runs": [RUN]})).json()["runs"]
    assert (each["status"], each["code"]) == (409, "switched_off")
    await working.delete(f"{URL}/global")
    assert (await working.post("/api/v1/runs", json=RUN)).status_code == 202


async def test_a_held_run_says_why(working: httpx2.AsyncClient) -> None:
    run = (await working.post("/api/v1/runs", json=RUN)).json()["id"]
    await working.post(URL, json={"scope": "tenant:default"})

    told = (await working.get(f"/api/v1/runs/{run}/why")).json()

    assert told["reasons"][0].startswith("it is held by switch tenant:default (hold), tripped by")


async def test_an_agent_is_suspended_and_resumed(working: httpx2.AsyncClient) -> None:
    suspended = await working.post("/api/v1/agents/hello/suspend", json={"reason": "weekend"})

    assert (suspended.json()["scope"], suspended.json()["mode"]) == ("agent:hello", "hold")
    assert (await working.post("/api/v1/agents/hello/resume")).status_code == 200
    assert (await working.post("/api/v1/agents/hello/resume")).status_code == 404
    unknown = await working.post("/api/v1/agents/nobody/suspend")
    assert "no agent 'nobody' is registered" in unknown.json()["note"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "agnt:hello"}, "scope"),
        ({"scope": "agent:hello", "mode": "off"}, "mode"),
        ({"mode": "hold"}, "scope"),
        ({"scope": "global", "why": "x"}, "why"),
    ],
)
async def test_what_does_not_fit_is_named(working: httpx2.AsyncClient, body: dict[str, str], field: str) -> None:
    refused = await working.post(URL, json=body)

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
