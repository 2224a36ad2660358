"""The inbox of approvals: the nearest deadline first, page by page, and nobody else's."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.control.runs import Request, Submitter
from pilothouse.control.waits import Wait
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.control.steps import an_ask, checkpoint, ended
from tests.web.browsing import MARKUP, expect_harmless, send, signed_in
from tests.web.platform import FakeWorker

MINUTE_US = 60_000_000
Ask = Callable[..., Awaitable[str]]


@pytest.fixture
def ask(db: Database, worker: FakeWorker) -> Ask:
    """Makes a run that waits for an approval; its id."""
    from pilothouse.control import attempts

    async def make(*, tenant: str = "default", **changes: Any) -> str:
        made = await Submitter(db).submit(Request("hello", {"name": "Ada"}, principal="test", tenant=tenant))
        run = next(each for each in await worker.claim() if each.run_id == made.id)
        wanted = an_ask(**changes)

        def work(tx: Any) -> None:
            attempts.write_checkpoints(tx, [checkpoint(run, "refund.asked")._replace(asks=(wanted,))])
            waits = (Wait("approval", wanted.id, "refund"),)
            attempts.settle_attempts(tx, [ended(run, "suspended", waits=waits)], principal="test")

        await db.transaction(work)
        return wanted.id

    return make


def listed(page: httpx2.Response) -> list[str]:
    return re.findall(r'class="name" href="/approvals/([^"]+)"', page.text)


async def test_the_nearest_deadline_comes_first_page_by_page(
    api: httpx2.AsyncClient, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, never, soon = await ask(deadline_us=50 * MINUTE_US), await ask(), await ask(deadline_us=5 * MINUTE_US)
    same = await ask(deadline_us=None)
    assert listed(await api.get("/approvals")) == [soon, late, never, same]

    monkeypatch.setattr("pilothouse.web.pages.approvals.SHOWN", 2)
    first = await api.get("/approvals?agent=hello")
    following = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert following is not None
    second = await api.get(following[1].replace("&amp;", "&"))
    assert (listed(first), listed(second)) == ([soon, late], [never, same])
    assert 'rel="next"' not in second.text
    assert listed(await api.get("/approvals?agent=other")) == []
    assert (await api.get("/approvals?after=x")).status_code == 422
    every = await api.get("/approvals?state=all")
    assert (listed(every), 'rel="next"' in every.text) == ([same, soon], True)


async def test_what_a_reviewer_has_changed_is_shown(api: httpx2.AsyncClient, ask: Ask) -> None:
    id = await ask(recommendation=MARKUP)
    expect_harmless(await api.get(f"/approvals/{id}"))
    edited = '{"order": 7, "amount_usd": 40}'
    done = await send(api, f"/approvals/{id}", arguments=edited, decision="approve", note=MARKUP)
    assert done.status_code == 303

    page = await api.get(f"/approvals/{id}")
    expect_harmless(page)
    assert "Your approval was recorded" in page.text
    changes = re.findall(r'<span class="(?:added|removed)">([+-]) (.*?)</span>', page.text)
    assert [mark for mark, _ in changes] == ["-", "+"]
    again = await ask()
    assert f'href="/approvals/{id}"' in (await api.get(f"/approvals/{again}")).text


async def test_roles_and_tenants(app: FastAPI, db: Database, ask: Ask) -> None:
    own, other = await ask(tenant="acme"), await ask(tenant="other")
    async with signed_in(app, db, "vera", KeyRole.VIEWER) as viewer:
        page = await viewer.get(f"/approvals/{own}")
        assert (page.status_code, 'name="decision"' in page.text) == (200, False)
        assert (await send(viewer, f"/approvals/{own}", decision="approve")).status_code == 403
    async with signed_in(app, db, "acme", KeyRole.OPERATOR, tenant="acme") as acme:
        assert listed(await acme.get("/approvals")) == [own]
        assert listed(await acme.get("/approvals?tenant=other&state=all")) == [own]
        assert (await acme.get(f"/approvals/{other}")).status_code == 404
