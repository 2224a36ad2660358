"""API keys: from the first one on, every request shows one, and each may do what its role and its tenant allow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.control import keys
from pilothouse.domain.keys import KeyRole, includes
from pilothouse.store.database import Database
from pilothouse.web import access
from tests.patience import WAIT_SECONDS
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

RUNS = "/api/v1/runs"
Open = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def as_key(app: FastAPI, db: Database, worker: FakeWorker) -> AsyncIterator[Open]:
    """Opens clients that show a new key of a role."""
    clients: list[httpx2.AsyncClient] = []

    async def open_client(role: str, tenant: str | None = None, **options: Any) -> httpx2.AsyncClient:
        values: dict[str, Any] = {"tenant": tenant, "expires_at": None, "principal": "test"} | options
        made = await keys.create_key(db, f"{role}-{tenant}", KeyRole(role), **values)
        client = await documented_client(app).__aenter__()
        client.headers["authorization"] = f"Bearer {made.text}"
        client.headers["x-key-id"] = made.id
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.__aexit__(None, None, None)


def submitted(tenant: str | None = None) -> dict[str, Any]:
    return {"agent": "hello", "input": {"name": "Ada"}} | ({"tenant": tenant} if tenant else {})


async def test_from_the_first_key_on_every_request_needs_one(api: httpx2.AsyncClient, as_key: Open) -> None:
    key = await as_key("operator")

    for headers in ({}, {"Authorization": "Bearer ph_000000000000_wrong"}, {"Authorization": "Basic eDp5"}):
        refused = await api.get(RUNS, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="pilothouse"'
        assert refused.json()["code"] == "unauthorized"
    assert (await key.post(RUNS, json=submitted())).status_code == 202
    for path in ("/health", "/ready", "/sign-in"):
        assert (await api.get(path)).status_code in (200, 503)


async def test_with_keys_the_header_host_does_not_matter(as_key: Open) -> None:
    key = await as_key("viewer")

    assert (await key.get(RUNS, headers={"Host": "pilothouse.example"})).status_code == 200


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that the OpenAPI document names, with something in the place of names."""
    document = app.openapi()
    return [
        (method.upper(), re.sub(r"{\w+}", lambda found: "1" if found[0] == "{seq}" else "x", path))
        for path, operations in document["paths"].items()
        for method in operations
    ]


async def test_every_route_needs_the_role_that_its_kind_says(app: FastAPI, as_key: Open) -> None:
    clients = {role: await as_key(role) for role in KeyRole}
    wanted = dict.fromkeys(("POST", "PUT", "DELETE"), KeyRole.OPERATOR) | {"GET": KeyRole.VIEWER}

    for method, path in routes(app):
        if path.endswith("events") or path in access.OPEN_PATHS:
            continue
        needed = KeyRole.ADMIN if path.startswith(("/api/v1/keys", "/api/v1/tenants")) else wanted[method]
        assert access.role_needed(method, path) == needed, (method, path)
        for role, client in clients.items():
            answered = await client.request(method, path, json=None if method == "GET" else {})
            is_refused = answered.status_code == 403
            assert is_refused == (not includes(role, needed)), (role, method, path, answered.text)


async def test_a_revoked_or_expired_key_opens_nothing(
    db: Database, api: httpx2.AsyncClient, as_key: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FRESH_SECONDS", 0.0)
    admin, viewer = await as_key("admin"), await as_key("viewer")
    expired = await as_key("viewer", expires_at=db.clock.now_us() - 1)
    assert (await viewer.get(RUNS)).status_code == 200
    assert (await expired.get(RUNS)).status_code == 401

    revoked = await admin.post(f"/api/v1/keys/{viewer.headers['x-key-id']}/revoke")
    assert revoked.json() == {"id": viewer.headers["x-key-id"], "state": "revoked"}
    assert (await viewer.get(RUNS)).status_code == 401
    again = await admin.post(f"/api/v1/keys/{viewer.headers['x-key-id']}/revoke")
    assert again.status_code == 409
    assert "was revoked before" in again.json()["detail"]


async def test_a_key_is_shown_once_kept_as_a_hash_and_its_use_is_noted(db: Database, as_key: Open) -> None:
    admin = await as_key("admin")
    made = (await admin.post("/api/v1/keys", json={"name": "shop", "role": "viewer"})).json()

    listed = (await admin.get("/api/v1/keys")).json()["items"]
    rows = db.administer(lambda tx: tx.fetch_all("SELECT * FROM api_keys"))
    assert made["key"].startswith(f"ph_{made['id']}_")
    assert made["key"].split("_", 2)[2] not in str([listed, rows])
    async with asyncio.timeout(WAIT_SECONDS):
        while not any(  # noqa: ASYNC110 - the server is asked
            key["last_used_at"] for key in (await admin.get("/api/v1/keys")).json()["items"]
        ):
            await asyncio.sleep(0.01)


async def test_who_acts_is_in_the_audit(as_key: Open) -> None:
    key = await as_key("operator")
    run = (await key.post(RUNS, json=submitted())).json()["id"]

    (record,) = (await key.get(f"/api/v1/audit?entity_id={run}")).json()["items"]
    assert record["principal"] == "key:operator-None"
