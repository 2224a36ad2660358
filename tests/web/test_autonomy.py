"""Autonomy, calibration and stability plans over HTTP."""

from __future__ import annotations

import httpx2
import pytest

from pilothouse.store.database import Database
from tests.control.decisions import decide
from tests.web.platform import FakeWorker, agent_card

URL = "/api/v1/agents/hello"
PLANS = "/api/v1/stability"


@pytest.fixture
async def declared(api: httpx2.AsyncClient, db: Database) -> httpx2.AsyncClient:
    card = agent_card("hello")
    await FakeWorker(db).start(card)
    decide(db, *["approve"] * 49, "edit", agent="hello", fingerprint=card.fingerprint)
    return api


async def test_levels_are_shown_promoted_and_demoted(declared: httpx2.AsyncClient) -> None:
    whole, send = (await declared.get(f"{URL}/autonomy")).json()["items"]
    assert (whole["action"], whole["level"], whole["evidence"]) == ("*", "assisted", None)
    assert (send["action"], send["evidence"]["decided"], send["missing"]) == ("send", 50, [])

    promoted = await declared.post(f"{URL}/autonomy/promote", json={"action": "send"})
    assert (promoted.status_code, promoted.json()["level"], promoted.json()["set_by"]) == (
        200,
        "autonomous",
        "api:local",
    )
    assert (await declared.post(f"{URL}/autonomy/promote", json={"action": "send"})).status_code == 409
    demoted = await declared.post(f"{URL}/autonomy/demote", json={"reason": "odd mails"})
    assert (demoted.json()["action"], demoted.json()["level"], demoted.json()["reason"]) == (
        "*",
        "supervised",
        "odd mails",
    )
    refused = await declared.post(f"{URL}/autonomy/promote", json={"action": "send"})
    assert "0 of 50 supervised actions" in refused.json()["detail"]


async def test_low_scores_demote(declared: httpx2.AsyncClient) -> None:
    body = {"scores": [0.5] * 5, "baseline": 0.8}

    assert (await declared.post(f"{URL}/scores", json=body)).json() == {"agent": "hello", "demoted": True}
    assert (await declared.post(f"{URL}/scores", json={"scores": [], "baseline": 0.8})).status_code == 422


async def test_calibration_is_a_table_with_what_comes_of_it(declared: httpx2.AsyncClient) -> None:
    shown = (await declared.get(f"{URL}/calibration")).json()

    assert len(shown["buckets"]) == 10
    assert (shown["decided"], shown["is_off"], shown["effective_threshold"]) == (50, False, 0.9)
    assert shown["buckets"][9]["observed"] == pytest.approx(0.98)


async def test_a_plan_is_started_shown_and_stopped(declared: httpx2.AsyncClient) -> None:
    assert (await declared.get(f"{PLANS}/hello")).status_code == 404
    started = await declared.post(PLANS, json={"agent": "hello", "days_scale": 0.5, "actions_per_day": 10})
    assert (started.status_code, started.json()["level"], started.json()["actions_per_day"]) == (201, "supervised", 5)
    assert (await declared.post(PLANS, json={"agent": "hello"})).status_code == 409

    (listed,) = (await declared.get(PLANS)).json()["items"]
    assert (listed["state"], len(listed["findings"])) == ("running", 7)
    stopped = await declared.post(f"{PLANS}/hello/stop", json={"reason": "not now"})
    assert (stopped.json()["state"], stopped.json()["reason"]) == ("stopped", "not now")
    assert (await declared.get(f"{PLANS}/hello")).json()["state"] == "stopped"
    assert (await declared.post(f"{PLANS}/hello/stop")).status_code == 404


async def test_unknown_agents_are_problems(declared: httpx2.AsyncClient) -> None:
    for path in ("autonomy", "calibration"):
        answered = await declared.get(f"/api/v1/agents/helo/{path}")
        assert answered.status_code == 404
        assert "did you mean 'hello'" in answered.json()["detail"]
