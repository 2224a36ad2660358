"""Schedules over HTTP."""

from __future__ import annotations

import httpx2
import pytest

from pilothouse.control import schedules
from pilothouse.control.schedules import ScheduleCard
from pilothouse.store.database import Database
from tests.web.platform import FakeWorker, agent_card

URL = "/api/v1/schedules"


@pytest.fixture
async def declared(api: httpx2.AsyncClient, db: Database) -> httpx2.AsyncClient:
    await FakeWorker(db).start(agent_card("hello"))
    cards = [ScheduleCard("nightly", "hello", "0 2 * * *", "Europe/Paris", '{"name":"Ada"}')]
    await db.transaction(lambda tx: schedules.register(tx, "greetings", cards, principal="test"))
    return api


async def test_a_schedule_is_shown_paused_resumed_and_fired(declared: httpx2.AsyncClient) -> None:
    (listed,) = (await declared.get(URL)).json()["items"]
    assert (listed["name"], listed["state"], len(listed["next_fires"])) == ("nightly", "active", 5)

    assert (await declared.post(f"{URL}/nightly/pause")).json()["state"] == "paused"
    assert (await declared.post(f"{URL}/nightly/pause")).status_code == 409
    assert (await declared.post(f"{URL}/nightly/resume")).json()["state"] == "active"

    fired = await declared.post(f"{URL}/nightly/fire", headers={"Idempotency-Key": "once"})
    assert fired.status_code == 202
    run = (await declared.get(fired.headers["location"])).json()
    assert (run["agent"], run["input"]) == ("hello", {"name": "Ada"})
    assert (await declared.get(f"{URL}/nightly")).json()["last_run_id"] == run["id"]


async def test_an_unknown_schedule_is_a_problem(declared: httpx2.AsyncClient) -> None:
    answered = await declared.get(f"{URL}/nightyl")

    assert answered.status_code == 404
    assert "did you mean 'nightly'" in answered.json()["detail"]
