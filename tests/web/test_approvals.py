"""Approvals over HTTP: the API, the pages for people, and the signed links in messages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse import payloads
from pilothouse.config import Settings, load_settings
from pilothouse.control import keys
from pilothouse.control.runs import Request, Submitter
from pilothouse.control.waits import Wait
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.notices import Link, sign_link
from pilothouse.store.database import Database
from tests.control.steps import an_ask, checkpoint, ended
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

URL = "/api/v1/approvals"
SECRET = "a secret of sixteen"
NEVER = 4_000_000_000
Ask = Callable[..., Awaitable[str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        database_url=f"sqlite:///{tmp_path}/test.db?synchronous=normal",
        approval_secret=SECRET,
        policies={"big": {"then": "ask", "tool": "refund", "amount_over_usd": 50, "reason": "big refunds"}},
    )


@pytest.fixture
def ask(db: Database, worker: FakeWorker) -> Ask:
    """Makes a run that waits for an approval; its id."""
    from pilothouse.control import attempts

    async def make(*, tenant: str = "default", principal: str = "test", **changes: Any) -> str:
        request = Request("hello", {"name": "Ada"}, principal=principal, tenant=tenant)
        await Submitter(db).submit(request)
        run, wanted = await worker.claim_one(), an_ask(**changes)
        waits = (Wait("approval", wanted.id, "refund"),)

        def work(tx: Any) -> None:
            attempts.write_checkpoints(tx, [checkpoint(run, "refund.asked")._replace(asks=(wanted,))])
            attempts.settle_attempts(tx, [ended(run, "suspended", waits=waits)], principal="test")

        await db.transaction(work)
        return wanted.id

    return make


@pytest.fixture
async def as_key(app: FastAPI, db: Database) -> AsyncIterator[Callable[..., Awaitable[httpx2.AsyncClient]]]:
    clients: list[httpx2.AsyncClient] = []

    async def open_client(name: str, role: str = "operator", tenant: str | None = None) -> httpx2.AsyncClient:
        made = await keys.create_key(db, name, KeyRole(role), tenant=tenant, expires_at=None, principal="test")
        client = await documented_client(app).__aenter__()
        client.headers["authorization"] = f"Bearer {made.text}"
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.__aexit__(None, None, None)


async def test_an_approval_is_listed_shown_edited_and_decided_once(api: httpx2.AsyncClient, ask: Ask) -> None:
    first, second = await ask(), await ask()

    page = (await api.get(URL, params={"limit": 1})).json()
    assert ([item["id"] for item in page["items"]], page["next"]) == ([second], second)
    assert [item["id"] for item in (await api.get(URL, params={"after": second})).json()["items"]] == [first]
    shown = (await api.get(f"{URL}/{first}")).json()
    assert (shown["arguments"], shown["state"], shown["votes"]) == ({"order": 7, "amount_usd": 80}, "pending", [])

    wrong = {"decision": "approve", "arguments": {"order": "x"}}
    refused = await api.post(f"{URL}/{first}/decision", json=wrong)
    assert (refused.status_code, refused.json()["errors"][0]["field"][:9]) == (422, "arguments")
    said = {
        "decision": "approve",
        "arguments": {"order": 7, "amount_usd": 50},
        "arguments_hash": shown["arguments_hash"],
    }
    decided = await api.post(f"{URL}/{first}/decision", json=said)
    assert (decided.status_code, decided.json()["state"], decided.json()["decided_by"]) == (
        200,
        "approved",
        "api:local",
    )
    assert (await api.post(f"{URL}/{first}/decision", json={"decision": "approve"})).status_code == 200
    other = await api.post(f"{URL}/{first}/decision", json={"decision": "reject", "note": "no"})
    assert (other.status_code, "was approved by api:local" in other.json()["detail"]) == (409, True)
    assert (await api.get(URL, params={"state": "approved"})).json()["items"][0]["decided_arguments"][
        "amount_usd"
    ] == 50
    why = (await api.get(f"/api/v1/runs/{(await api.get(f'{URL}/{second}')).json()['run_id']}/why")).json()
    assert f"pilothouse approvals approve {second}" in why["next"]


async def test_a_rejection_needs_a_reason(api: httpx2.AsyncClient, ask: Ask) -> None:
    id = await ask()

    assert (await api.post(f"{URL}/{id}/decision", json={"decision": "reject"})).status_code == 422
    assert (await api.post(f"{URL}/{id}/decision", json={"decision": "reject", "note": "no"})).json()["note"] == "no"


async def test_a_key_of_a_tenant_sees_and_decides_only_its_own(ask: Ask, as_key: Any) -> None:
    own, other = await ask(tenant="acme"), await ask(tenant="other")
    acme = await as_key("acme", tenant="acme")

    assert [item["id"] for item in (await acme.get(URL)).json()["items"]] == [own]
    assert (await acme.get(URL, params={"tenant": "other"})).status_code == 404
    for path in (f"{URL}/{other}", f"/approvals/{other}"):
        assert (await acme.get(path)).status_code in (404, 401)
    assert (await acme.post(f"{URL}/{other}/decision", json={"decision": "approve"})).status_code == 404
    assert (await acme.post(f"{URL}/{other}/delegate", json={"to": "cli:x"})).status_code == 404
    assert (await acme.post(f"{URL}/{own}/decision", json={"decision": "approve"})).json()["decided_by"] == "key:acme"


async def test_roles_and_own_requests_count(ask: Ask, as_key: Any) -> None:
    id = await ask(principal="key:ada", reviewer="admin", risk=3)
    viewer, operator = await as_key("vera", "viewer"), await as_key("olga")
    ada, grace = await as_key("ada", "admin"), await as_key("grace", "admin")

    for client, told in (
        (viewer, "viewer"),
        (operator, "senior reviewer"),
        (ada, "nobody approves what they asked for"),
    ):
        refused = await client.post(f"{URL}/{id}/decision", json={"decision": "approve"})
        assert (refused.status_code, told in refused.json()["detail"]) == (403, True)
    assert (await operator.post(f"{URL}/{id}/delegate", json={"to": "key:grace"})).status_code == 403
    given = await grace.post(f"{URL}/{id}/delegate", json={"to": "key:grace"})
    assert given.json()["assigned_to"] == "key:grace"
    assert (await grace.post(f"{URL}/{id}/decision", json={"decision": "approve"})).json()["state"] == "approved"


async def test_policies_are_listed_and_explained(api: httpx2.AsyncClient) -> None:
    listed = (await api.get("/api/v1/policies")).json()
    assert "big" in [item["name"] for item in listed["items"]]

    body = {"agent": "desk", "action": "refund", "amount_usd": 80, "risk": 4}
    said = (await api.post("/api/v1/policies/explain", json=body)).json()
    assert (said["decision"], said["quorum"], said["version"]) == ("ask", 2, listed["version"])
    assert [reason["rule"] for reason in said["reasons"]] == ["amount", "big", "risk"]
    assert (await api.post("/api/v1/policies/explain", json={"action": "x", "amuont": 1})).status_code == 422


# --- pages -------------------------------------------------------------------------------------


def field(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found is not None, text
    return found[1]


async def test_a_page_shows_what_users_wrote_as_text_and_runs_nothing(api: httpx2.AsyncClient, ask: Ask) -> None:
    evil = "<script>alert(1)</script>"
    id = await ask(title=evil, recommendation=evil, arguments=payloads.encode({"x": "</textarea><img src=x>"}))

    for path in ("/approvals", f"/approvals/{id}"):
        page = await api.get(path)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "<img src=x" not in page.text
        assert "&lt;script&gt;" in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
        assert "unsafe" not in policy


async def test_a_form_decides_and_only_the_pages_own_one(api: httpx2.AsyncClient, ask: Ask) -> None:
    id = await ask()
    page = await api.get(f"/approvals/{id}")
    form = {
        "form": field(page.text, "form"),
        "seen": field(page.text, "seen"),
        "arguments": '{"order": 7, "amount_usd": 40}',
        "decision": "approve",
    }

    for forged in ({**form, "form": ""}, {**form, "form": "-"}, {**form, "form": "0" * 64}):
        assert (await api.post(f"/approvals/{id}", data=forged)).status_code == 403
    foreign = await api.post(f"/approvals/{id}", data=form, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    without = await api.post(f"/approvals/{id}", data=form, headers={"Cookie": ""})
    assert without.status_code == 403
    form["form"] = field((await api.get(f"/approvals/{id}")).text, "form")  # it gave the browser another cookie
    broken = await api.post(f"/approvals/{id}", data={**form, "arguments": "{"})
    assert (broken.status_code, "not JSON" in broken.text) == (422, True)
    done = await api.post(f"/approvals/{id}", data=form)
    assert (done.status_code, done.headers["location"]) == (303, f"/approvals/{id}")
    shown = (await api.get(f"{URL}/{id}")).json()
    assert (shown["state"], shown["decided_arguments"]) == ("approved", {"order": 7, "amount_usd": 40})
    again = await api.get(f"/approvals/{id}")
    assert 'value="approve"' not in again.text


async def test_with_keys_a_browser_signs_in_and_the_api_takes_no_cookie(app: FastAPI, db: Database, ask: Ask) -> None:
    id = await ask()
    made = await keys.create_key(db, "ada", KeyRole.OPERATOR, tenant=None, expires_at=None, principal="test")
    async with documented_client(app) as browser:
        led = await browser.get(f"/approvals/{id}")
        assert (led.status_code, led.headers["location"]) == (303, f"/sign-in?next=%2Fapprovals%2F{id}")
        form = {"form": field((await browser.get(led.headers["location"])).text, "form"), "next": f"/approvals/{id}"}
        assert (await browser.post("/sign-in", data={**form, "key": "ph_x_y"})).status_code == 401
        assert (await browser.post("/sign-in", data={**form, "key": made.text, "form": "x"})).status_code == 403
        signed = await browser.post("/sign-in", data={**form, "key": made.text})
        assert signed.headers["location"] == f"/approvals/{id}"
        cookie = next(each for each in signed.headers.get_list("set-cookie") if "session" in each)
        assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Path=/"))
        assert made.text not in cookie
        page = await browser.get(f"/approvals/{id}")
        form = {"form": field(page.text, "form"), "decision": "reject", "note": "no"}
        assert (await browser.post(f"/approvals/{id}", data=form)).status_code == 303
        assert (await browser.get(URL)).status_code == 401
    row = await db.read(lambda tx: tx.fetch_one("approval_by_id", id=id))
    assert row is not None
    assert (row["state"], row["decided_by"]) == ("rejected", "key:ada")


# --- links -------------------------------------------------------------------------------------


def link_to(id: str, choice: Any = "approve", *, expires_at: int = NEVER, secret: str = SECRET) -> str:
    return f"/approvals/link/{sign_link(secret, Link(id, choice, 'email:ops@example.com', expires_at))}"


async def test_a_link_asks_first_decides_on_its_button_and_once(api: httpx2.AsyncClient, ask: Ask, as_key: Any) -> None:
    id = await ask()
    await as_key("somebody")
    approve, reject = link_to(id), link_to(id, "reject")

    for _ in range(2):
        page = await api.get(approve)
        assert (page.status_code, "You decide as email:ops@example.com" in page.text) == (200, True)
        assert (await api.head(approve)).status_code == 405
    decided = await api.post(approve, data={"seen": field(page.text, "seen"), "note": "ok"})
    assert (decided.status_code, "it is approved" in decided.text) == (200, True)
    assert (await api.post(approve, data={})).status_code == 200
    other = await api.post(reject, data={"note": "no"})
    assert (other.status_code, "was approved by email:ops@example.com" in other.text) == (409, True)


async def test_a_tampered_or_expired_link_is_refused(api: httpx2.AsyncClient, ask: Ask) -> None:
    id, other = await ask(), await ask()
    good = link_to(id)
    body, _, signature = good.rpartition("/")[2].partition(".")
    wrong = [
        link_to(id, expires_at=1),
        link_to(id, secret="another secret of sixteen"),
        link_to(id, "delegate"),
        f"/approvals/link/{body}.{signature[:-1]}x",
        f"/approvals/link/{link_to(other).rpartition('/')[2].partition('.')[0]}.{signature}",
        f"/approvals/link/{body}",
        "/approvals/link/x.y",
        link_to("01a1ff02-0000-7000-8000-000000000000"),
    ]

    for path in wrong:
        assert (await api.get(path)).status_code == 404, path
        assert (await api.post(path, data={"note": "x"})).status_code == 404, path
    assert (await api.get(f"{URL}/{id}")).json()["state"] == "pending"


async def test_a_link_is_no_senior_reviewer(api: httpx2.AsyncClient, ask: Ask) -> None:
    id = await ask(reviewer="admin", risk=3)

    refused = await api.post(link_to(id), data={})
    assert (refused.status_code, "senior reviewer" in refused.text) == (403, True)
