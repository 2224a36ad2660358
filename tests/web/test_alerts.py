"""Alerts over HTTP: read by viewers, changed by operators, and nothing for keys of one tenant."""

from __future__ import annotations

import httpx2
import pytest

from pilothouse.control import keys
from pilothouse.control.alert_notices import Delivery
from pilothouse.control.alerting import Alerting
from pilothouse.control.switches import TripOrder, trip_switch
from pilothouse.domain.alert_rules import RULES
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.telemetry.events import Emitter

URL = "/api/v1/alerts"


@pytest.fixture
async def alert_id(api: httpx2.AsyncClient, db: Database) -> str:
    """An alert that fires."""
    await trip_switch(db, TripOrder("agent:hello", reason="odd"), principal="test")
    await Alerting(db, RULES, UTC_CALENDAR, Delivery(), Emitter()).evaluate()
    listed = (await api.get(URL, params={"rule": "switch-tripped"})).json()
    (row,) = listed["items"]
    assert (row["subject"], row["agent"], row["state"]) == ("switch:agent:hello", "hello", "firing")
    return str(row["id"])


async def test_an_alert_is_listed_shown_and_acknowledged(api: httpx2.AsyncClient, alert_id: str) -> None:
    shown = (await api.get(f"{URL}/{alert_id}")).json()
    assert (shown["severity"], shown["runbook"], shown["notices"]) == ("info", "runaway-agent", [])
    assert [each["action"] for each in shown["audit"]] == ["alert.fired"]

    said = (await api.post(f"{URL}/{alert_id}/acknowledge", json={"reason": "on it"})).json()

    assert said["acknowledged_by"] == "api:local"
    assert (await api.post(f"{URL}/{alert_id}/acknowledge")).status_code == 409
    missing = await api.get(f"{URL}/nobody")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (await api.get(URL, params={"severity": "critical"})).json()["items"] == []
    assert (await api.get("/api/v1/overview")).json()["alerts"]["firing"]["info"] == 1
    figures = (await api.get("/metrics")).text
    assert 'pilothouse_alerts_firing{rule="switch-tripped"} 1' in figures
    assert 'pilothouse_alerts_firing{rule="queue-age"} 0' in figures


async def test_silences_are_made_listed_and_ended(api: httpx2.AsyncClient, alert_id: str) -> None:
    made = await api.post("/api/v1/silences", json={"rule": "switch-*", "minutes": 5, "reason": "exercise"})

    assert made.status_code == 201
    listed = (await api.get("/api/v1/silences")).json()["items"]
    assert [(each["id"], each["subject"]) for each in listed] == [(made.json()["id"], "*")]
    assert (await api.get(f"{URL}/{alert_id}")).json()["is_silenced"]
    assert (await api.delete(f"/api/v1/silences/{made.json()['id']}")).json()["ended_by"] == "api:local"
    assert (await api.delete(f"/api/v1/silences/{made.json()['id']}")).status_code == 409
    refused = await api.post("/api/v1/silences", json={"rule": "swich", "minutes": 5, "reason": "x"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "rule")
    assert (await api.post("/api/v1/silences", json={"minutes": 0, "reason": "x"})).status_code == 422


async def test_rules_say_what_they_measure_now(api: httpx2.AsyncClient, alert_id: str) -> None:
    rules = {each["rule"]: each for each in (await api.get("/api/v1/alert-rules")).json()["items"]}

    assert alert_id
    assert set(rules) == {rule.name for rule in RULES}
    tripped = rules["switch-tripped"]
    assert (tripped["state"], tripped["firing"], tripped["subject"]) == ("firing", 1, "switch:agent:hello")
    accepted = await api.post("/api/v1/alert-rules/cost-drift/accept", json={"agent": "hello"})
    assert (accepted.status_code, "has no baseline" in accepted.text) == (404, True)
    assert (await api.post("/api/v1/alert-rules/queue-age/accept", json={"agent": "hello"})).status_code == 422


async def test_a_channel_that_is_not_in_the_settings_is_refused(api: httpx2.AsyncClient) -> None:
    refused = await api.post(f"{URL}/test", json={"channel": "email"})

    assert refused.status_code == 422
    assert "needs the setting alert_channels or approval_channels first" in refused.text


@pytest.fixture
async def viewer(api: httpx2.AsyncClient, db: Database) -> httpx2.AsyncClient:
    """With the key of a viewer, which is there before anybody asks for anything."""
    made = await keys.create_key(db, "eyes", KeyRole.VIEWER, tenant=None, expires_at=None, principal="test")
    api.headers["authorization"] = f"Bearer {made.text}"
    return api


async def test_viewers_read_and_operators_act(viewer: httpx2.AsyncClient, alert_id: str) -> None:
    for path in (URL, f"{URL}/{alert_id}", "/api/v1/silences", "/api/v1/alert-rules"):
        assert (await viewer.get(path)).status_code == 200
    for path in (f"{URL}/{alert_id}/acknowledge", "/api/v1/silences", f"{URL}/test"):
        assert (await viewer.post(path, json={})).status_code == 403
