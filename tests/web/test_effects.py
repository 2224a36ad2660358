"""Effects and incidents over HTTP: whole on one store, and only for their own tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse import App, Context, MayHaveHappened
from pilothouse.config import Settings
from pilothouse.control import effects, keys
from pilothouse.control.effects import EffectFilter
from pilothouse.control.runs import Submitter
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.testing import TestPlatform
from pilothouse.web.server import create_server
from tests.web.documented import documented_client

EFFECTS, INCIDENTS = "/api/v1/effects", "/api/v1/incidents"


def mail() -> App:
    app = App("mail")

    @app.tool(effect="irreversible", platform="email")
    async def send(to: str) -> str:
        if to == "lost":
            raise MayHaveHappened("the answer was lost")
        return "sent"

    @app.agent
    async def writer(ctx: Context, to: str = "ada") -> str:
        return str(await ctx.tool(send, to=to))

    return app


@pytest.fixture
async def platform(settings: Settings, db: Database) -> AsyncIterator[TestPlatform]:
    """On the database of the API: one effect that is known, one that is not, of two tenants."""
    async with TestPlatform(mail(), url=settings.database_url, is_frozen=False) as platform:
        await platform.submit("writer", {"to": "ada"}, tenant="acme")
        await platform.submit("writer", {"to": "lost"}, tenant="globex")
        await platform.run_until_idle()
        yield platform


async def test_effects_are_listed_shown_and_resolved(api: httpx2.AsyncClient, platform: TestPlatform) -> None:
    page = (await api.get(EFFECTS, params={"limit": 1})).json()
    (first,) = page["items"]
    assert (first["state"], first["tenant"], first["arguments"]) == ("unknown", "globex", {"to": "lost"})
    (second,) = (await api.get(EFFECTS, params={"after": page["next"]})).json()["items"]
    assert second["state"] == "succeeded"
    assert len((await api.get(EFFECTS, params={"unknown": True})).json()["items"]) == 1
    assert (await api.get(EFFECTS, params={"after": "x"})).status_code == 422
    url = f"{EFFECTS}/{first['id']}"
    assert "effects resolve" in (await api.get(url)).json()["resolve"]

    assert (await api.post(f"{url}/resolve", json={"happened": True})).status_code == 422
    said = {"happened": True, "result": "sent", "note": "seen"}
    resolved = (await api.post(f"{url}/resolve", json=said)).json()
    assert (resolved["state"], resolved["note"], resolved["resolve"]) == ("succeeded", "seen", None)
    assert (await api.post(f"{url}/resolve", json=said)).status_code == 200
    assert (await api.post(f"{url}/resolve", json=said | {"happened": False, "result": None})).status_code == 409
    assert (await api.get(f"{EFFECTS}/none")).status_code == 404
    timeline = (await api.get(f"/api/v1/runs/{first['run_id']}/timeline")).json()
    assert [effect["state"] for effect in timeline["effects"]] == ["succeeded"]


async def test_incidents_are_opened_corrected_and_closed(api: httpx2.AsyncClient, platform: TestPlatform) -> None:
    (bad,) = (await api.get(EFFECTS, params={"tenant": "acme"})).json()["items"]

    opened = await api.post(INCIDENTS, json={"effect": bad["id"], "reason": "wrong person"})
    assert opened.status_code == 201
    url = opened.headers["location"]
    assert [effect["kinship"] for effect in opened.json()["effects"]] == ["original", "version"]
    assert (await api.post(INCIDENTS, json={"effect": bad["id"], "reason": "again"})).status_code == 409
    assert (await api.get(INCIDENTS, params={"state": "open"})).json()["items"][0]["siblings"] == 1
    case = (await api.get(f"{url}/case")).json()
    assert case["expectation"] == {"must_not_call": {"tool": "send", "arguments": {"to": "ada"}}}

    body = {"effect": bad["id"], "note": "sent an apology", "run": {"agent": "writer", "input": {"to": "grace"}}}
    corrected = (await api.post(f"{url}/correct", json=body)).json()
    assert corrected["corrections"][0]["audit_seq"] == corrected["effects"][0]["audit_seq"]
    assert (await api.post(f"{url}/correct", json=body | {"effect": "none"})).status_code == 409
    closed = (await api.post(f"{url}/close", json={"note": "the address book was old"})).json()
    assert closed["state"] == "closed"
    assert (await api.post(f"{url}/close", json={"note": "again"})).status_code == 409
    await platform.run_until_idle()


async def test_a_key_of_one_tenant_meets_only_its_own(
    db: Database, settings: Settings, platform: TestPlatform, app: FastAPI
) -> None:
    created = await keys.create_key(db, "shop", KeyRole.OPERATOR, tenant="acme", expires_at=None, principal="test")
    server = create_server(db, Submitter(db), settings, app.state.backend.stopping)
    async with documented_client(server) as api:
        api.headers["Authorization"] = f"Bearer {created.text}"
        (own,) = (await api.get(EFFECTS)).json()["items"]
        others = await effects.list_effects(platform.db, EffectFilter(tenant="globex"))
        assert own["tenant"] == "acme"
        assert others
        for foreign in others:
            url = f"{EFFECTS}/{foreign['id']}"
            assert (await api.get(url)).status_code == 404
            said = {"happened": True, "note": "seen"}
            assert (await api.post(f"{url}/resolve", json=said)).status_code == 404
            assert (await api.post(INCIDENTS, json={"effect": foreign["id"], "reason": "x"})).status_code == 404
        opened = (await api.post(INCIDENTS, json={"effect": own["id"], "reason": "x"})).json()
        assert [effect["tenant"] for effect in opened["effects"]] == ["acme"]
        assert [row["id"] for row in (await api.get(INCIDENTS)).json()["items"]] == [opened["id"]]
