"""Signing in: a key becomes a session, which is signed, ends with its key, and leads nowhere but here."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.control import keys
from pilothouse.control.keys import NewKey
from pilothouse.control.sessions import Sessions
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.web.access import SESSION_COOKIE
from tests.web.browsing import sign_in, token_of
from tests.web.documented import documented_client

HOUR_US = 3_600_000_000


@pytest.fixture
async def made(db: Database) -> NewKey:
    return await keys.create_key(db, "ada", KeyRole.VIEWER, tenant=None, expires_at=None, principal="test")


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with documented_client(app) as client:
        yield client


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_signing_in_leads_to_pages_of_ours_only(browser: httpx2.AsyncClient, made: NewKey, target: str) -> None:
    assert (await sign_in(browser, made.text, target)).headers["location"] == "/"


async def test_a_session_opens_the_pages_and_ends_by_signing_out(browser: httpx2.AsyncClient, made: NewKey) -> None:
    assert (await sign_in(browser, made.text, "/?a=1")).headers["location"] == "/?a=1"
    page = await browser.get("/")
    assert page.status_code == 200
    assert "key:ada" in page.text
    assert (await browser.get("/api/v1/runs")).status_code == 401
    token = re.search(r'action="/sign-out"><input type="hidden" name="form" value="(\w+)"', page.text)
    assert token is not None
    assert (await browser.post("/sign-out", data={"form": "0" * 64})).status_code == 403
    assert (await browser.post("/sign-out", data={"form": token[1]})).status_code == 303
    assert (await browser.get("/")).headers["location"] == "/sign-in?next=%2F"


async def test_what_is_posted_after_a_session_has_ended_leads_to_signing_in(
    browser: httpx2.AsyncClient, made: NewKey
) -> None:
    await sign_in(browser, made.text)
    form = token_of(await browser.get("/"))
    browser.cookies.delete(SESSION_COOKIE)

    answer = await browser.post("/runs/some", data={"do": "cancel", "form": form})

    assert answer.status_code == 401
    assert 'href="/sign-in?next=/runs/some"' in answer.text


async def test_a_session_ends_with_its_key_its_time_and_its_secret(db: Database, made: NewKey) -> None:
    sessions = Sessions(db, "a secret of sixteen", HOUR_US)
    text = await sessions.open(made.text)
    assert text is not None
    holder = await sessions.holder(text)
    assert holder is not None
    assert holder.principal == "key:ada"

    facts, _, signature = text.rpartition(".")
    key_id, expires, nonce = facts.split(".")
    forged = [
        f"{key_id}.{int(expires) + 1}.{nonce}.{signature}",
        f"{facts}.{signature[:-1]}",
        facts,
        "",
        "...",
        "é.1.2.3",
    ]
    assert [await sessions.holder(each) for each in forged] == [None] * len(forged)
    assert await Sessions(db, "another secret, longer", HOUR_US).holder(text) is None
    over = await Sessions(db, None, -1).open(made.text)
    assert over is not None
    assert await Sessions(db, None, HOUR_US).holder(over) is None
    await keys.revoke_key(db, made.id, principal="test")
    assert await sessions.holder(text) is None
    assert await sessions.open(made.text) is None
