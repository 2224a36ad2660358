"""The pages of settings, keys, tenants and the audit: who may see them, and what they do."""

from __future__ import annotations

import re

import httpx2
import pytest

from pilothouse.config import Settings
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.web.browsing import MARKUP, become, press, text_of, token_of
from tests.web.platform import FakeWorker


async def test_settings_are_shown_with_their_sources_and_no_secret(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_WEBHOOK_SECRET", "whsec_cGxlYXNlIGRvIG5vdCBzaG93IHRoaXM=")
    monkeypatch.setenv("PILOTHOUSE_RETENTION_DAYS", "12")

    page = await api.get("/settings")

    told = text_of(page)
    assert all(name in told for name in Settings.model_fields)
    assert "whsec_" not in page.text
    assert "12.0 PILOTHOUSE_RETENTION_DAYS" in told


async def test_a_key_is_made_shown_once_and_revoked(api: httpx2.AsyncClient, db: Database) -> None:
    made = await press(api, "/settings/keys", "/settings/keys", name=MARKUP, role="viewer", tenant="acme", days="7")

    assert made.status_code == 201
    (key,) = set(re.findall(r"ph_[0-9a-f]{12}_[\w-]+", made.text))
    assert MARKUP not in made.text
    await become(api, db, KeyRole.ADMIN)
    page = await api.get("/settings/keys")
    assert key not in page.text
    assert "acme" in text_of(page)

    revoke = f"/settings/keys/{key.split('_')[1]}/revoke"
    assert (await press(api, "/settings/keys", revoke)).headers["location"] == "/settings/keys"
    assert revoke not in (await api.get("/settings/keys")).text


@pytest.mark.parametrize(("name", "value"), [("name", " "), ("role", "king"), ("days", "soon"), ("days", "0")])
async def test_a_key_that_cannot_be_is_told_with_what_was_typed(api: httpx2.AsyncClient, name: str, value: str) -> None:
    typed = {"name": "shop", "role": "viewer", "tenant": "acme", "days": "", name: value}

    refused = await press(api, "/settings/keys", "/settings/keys", **typed)

    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert 'value="acme"' in refused.text


@pytest.mark.parametrize("path", ["/settings/keys", "/settings/tenants"])
async def test_only_admins_see_keys_and_tenants(api: httpx2.AsyncClient, db: Database, path: str) -> None:
    await become(api, db, KeyRole.OPERATOR)

    assert (await api.get(path)).status_code == 403
    assert path not in (await api.get("/settings")).text


async def test_every_tenant_is_listed(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}, "tenant": "acme"})

    assert "acme active 1 0 0 0" in text_of(await api.get("/settings/tenants"))


async def test_the_audit_is_searched_and_paged(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    runs = [
        (await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})).json()["id"]
        for _ in range(60)
    ]

    first = await api.get("/audit?action=run.submitted")
    assert len(re.findall(r'id="record-', first.text)) == 50
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older is not None
    second = await api.get(older[1].replace("&amp;", "&"))
    assert len(re.findall(r'id="record-', second.text)) == 10
    assert 'rel="next"' not in second.text

    of_one = await api.get(f"/audit?entity_id={runs[0]}")
    assert set(re.findall(r'href="/runs/([^"]+)"', of_one.text)) == {runs[0]}
    assert "No record fits" in text_of(await api.get("/audit?principal=nobody"))
    assert (await api.get("/audit?before=soon")).status_code == 422


async def test_the_audit_is_held_against_its_seals(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})
    page = text_of(await api.get("/audit/verification"))

    assert "The audit is as it was written" in page
    assert "newer ones not sealed yet" in page


async def test_a_forged_form_makes_no_key(api: httpx2.AsyncClient) -> None:
    token_of(await api.get("/settings/keys"))

    forged = await api.post("/settings/keys", data={"form": "forged", "name": "x", "role": "admin"})

    assert forged.status_code == 403
    assert (await api.get("/api/v1/keys")).json()["items"] == []
