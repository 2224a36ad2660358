"""A browser without a screen: it signs in, loads pages, and sends their forms back with the token of the page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import unescape

import httpx2
from fastapi import FastAPI

from pilothouse.control import keys
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.web.documented import documented_client

MARKUP = "<script>alert('x')</script>"
NOTHING: Mapping[str, str] = {}


def token_of(page: httpx2.Response) -> str:
    """What the forms of a page hold."""
    found = re.search(r'name="form" value="(\w+)"', page.text)
    assert found is not None, page.text[:2000]
    return found[1]


async def send(
    browser: httpx2.AsyncClient, page: str, target: str | None = None, fields: Mapping[str, str] = NOTHING, **more: str
) -> httpx2.Response:
    """Sends a form of the page `page` to `target` (the page itself unless given)."""
    token = token_of(await browser.get(page))
    return await browser.post(target or page, data={"form": token, **fields, **more})


async def press(browser: httpx2.AsyncClient, page: str, path: str, **fields: str) -> httpx2.Response:
    """The same, of a page that must have a form that leads there."""
    shown = await browser.get(page)
    assert f'action="{path}"' in shown.text, shown.text[:2000]
    return await browser.post(path, data={"form": token_of(shown), **fields})


async def sign_in(browser: httpx2.AsyncClient, key: str, target: str = "/") -> httpx2.Response:
    answer = await send(browser, "/sign-in", key=key, next=target)
    assert answer.status_code == 303, answer.text
    return answer


async def become(browser: httpx2.AsyncClient, db: Database, role: KeyRole, *, tenant: str | None = None) -> None:
    """From now on the browser is somebody with a new key of this role."""
    made = await keys.create_key(db, f"a {role}", role, tenant=tenant, expires_at=None, principal="test")
    await sign_in(browser, made.text)


@asynccontextmanager
async def signed_in(
    app: FastAPI, db: Database, name: str, role: KeyRole, *, tenant: str | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser with a session of a new key."""
    made = await keys.create_key(db, name, role, tenant=tenant, expires_at=None, principal="test")
    async with documented_client(app) as browser:
        await sign_in(browser, made.text)
        yield browser


def text_of(page: httpx2.Response) -> str:
    """What is read on a page: no markup, no doubled space."""
    assert page.status_code == 200, page.text[:2000]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))


def expect_harmless(page: httpx2.Response) -> None:
    """What users wrote came out as text."""
    assert page.status_code == 200, page.text
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert" in page.text
