"""The page of kill switches: trip one, see who acts by it, reset it."""

from __future__ import annotations

import httpx2
from fastapi import FastAPI

from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.web.browsing import MARKUP, expect_harmless, send, signed_in
from tests.web.platform import FakeWorker


async def test_a_switch_is_tripped_and_reset(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    page = await api.get("/switches")
    assert "Nothing is stopped" in page.text
    assert 'value="agent:hello"' in page.text
    assert (await send(api, "/switches", scope="agent", mode="hold")).status_code == 422
    assert (await send(api, "/switches", scope="agent:hello", mode="off")).status_code == 422

    done = await send(api, "/switches", scope="agent:hello", mode="abort", reason=MARKUP)
    assert (done.status_code, done.headers["location"]) == (303, "/switches")
    page = await api.get("/switches")
    expect_harmless(page)
    assert "1 of 1 live workers do not act by it yet" in page.text
    assert worker.id in page.text
    assert "pilothouse switch reset agent:hello" in page.text
    reset = await send(api, "/switches", "/switches/reset", scope="agent:hello")
    assert reset.status_code == 303
    assert "agent:hello was reset" in (await api.get("/switches")).text
    assert (await send(api, "/switches", "/switches/reset", scope="agent:hello")).status_code == 404


async def test_a_scope_that_nobody_knows_is_told(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await send(api, "/switches", scope="agent:helo", mode="hold")

    assert "no agent &#39;helo&#39; is registered" in (await api.get("/switches")).text


async def test_only_operators_trip(app: FastAPI, db: Database) -> None:
    async with signed_in(app, db, "vera", KeyRole.VIEWER) as viewer:
        page = await viewer.get("/switches")
        assert (page.status_code, 'name="scope"' in page.text) == (200, False)
        assert (await send(viewer, "/switches", scope="global", mode="hold")).status_code == 403
        assert (await send(viewer, "/switches", "/switches/reset", scope="global")).status_code == 403
    async with signed_in(app, db, "otto", KeyRole.OPERATOR) as operator:
        assert (await operator.post("/switches", data={"form": "0" * 64, "scope": "global"})).status_code == 403
        assert (await send(operator, "/switches", scope="global", mode="hold")).status_code == 303
        assert "by key:otto" in (await operator.get("/switches")).text
