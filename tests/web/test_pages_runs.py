"""The pages of runs: the list, many at once, one run. What users wrote is text on them, and stays in its tenant."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse import payloads
from pilothouse.control import keys
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.control.steps import checkpoint
from tests.web.browsing import send, sign_in, text_of, token_of
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

RUNS = "/api/v1/runs"
MARKUP = "<script>alert('x')</script><b>bold</b>"
RTL = "\u202eevil"


async def submit(api: httpx2.AsyncClient, name: str = "Ada", **options: object) -> str:
    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": name}, **options})
    return str(response.json()["id"])


async def state_of(api: httpx2.AsyncClient, run_id: str) -> str:
    return str((await api.get(f"{RUNS}/{run_id}")).json()["state"])


def links_of(text: str) -> list[str]:
    """The runs that a page leads to, in their order."""
    return list(dict.fromkeys(re.findall(r'href="/runs/([0-9a-f-]{36})"', text)))


async def write_step(db: Database, run: Any, key: str, **changes: Any) -> None:
    from pilothouse.control import attempts

    step = checkpoint(run, key)._replace(**changes)
    await db.transaction(lambda tx: attempts.write_checkpoints(tx, [step]))


# --- the list ------------------------------------------------------------------------------------


async def test_the_list_is_filtered_and_leads_on_page_by_page(
    api: httpx2.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse.web.pages.runs.SHOWN", 2)
    ids = [await submit(api, name) for name in ("Ada", "Bo", "Cy")]

    first = (await api.get("/runs")).text
    assert links_of(first) == ids[:0:-1]
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    assert links_of((await api.get(older[1].replace("&amp;", "&"))).text) == ids[:1]

    assert links_of((await api.get("/runs", params={"text": "bo", "agent": "hello"})).text) == [ids[1]]
    assert links_of((await api.get("/runs", params={"state": "queued", "last": "1h", "text": "cy"})).text) == [ids[2]]
    assert 'hello {"name":"Bo"} queued' in text_of(await api.get("/runs", params={"text": "bo"}))
    await submit(api, "y" * 70_000)
    assert "hello long queued" in text_of(await api.get("/runs"))
    nothing = (await api.get("/runs", params={"version": "zzz"})).text
    assert "No run fits" in nothing
    assert "pilothouse runs list --version zzz" in nothing


async def test_an_empty_list_says_how_to_begin(api: httpx2.AsyncClient) -> None:
    assert "pilothouse submit AGENT INPUT --watch" in (await api.get("/runs")).text


@pytest.mark.parametrize("query", ["state=done", "last=9y", "from=yesterday", "to=2026-99-99T00:00"])
async def test_a_filter_that_does_not_fit_is_a_page(api: httpx2.AsyncClient, query: str) -> None:
    answer = await api.get(f"/runs?{query}")

    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.text.lower()
    assert answer.headers["content-type"].startswith("text/html")


async def test_markup_and_steering_characters_in_a_run_are_text(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    run_id = await submit(api, MARKUP + RTL)
    run = await worker.claim_one()
    await write_step(db, run, MARKUP, result=payloads.encode({"said": MARKUP + RTL}), request=payloads.encode(MARKUP))
    await worker.log(run, MARKUP)
    await worker.settle(run, "fatal", error=payloads.encode({"type": "Oops", "message": MARKUP + RTL}))

    for path in ("/runs", f"/runs/{run_id}", f"/runs?text={MARKUP}", "/runs/bulk?verb=redrive"):
        page = (await api.get(path)).text
        assert "<script>alert" not in page, path
        assert "<b>bold" not in page, path
        assert "\u202e" not in page, path
        assert "&lt;script&gt;" in page, path


# --- many at once ---------------------------------------------------------------------------------


async def test_runs_of_a_filter_are_shown_before_they_are_cancelled(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    wanted, other = await submit(api, "Bo"), await submit(api, "Ada")
    preview = "/runs/bulk?verb=cancel&text=Bo"
    shown = (await api.get(preview)).text
    assert links_of(shown) == [wanted]
    assert "Cancel 1 run" in shown
    assert "pilothouse runs cancel --text Bo --dry-run" in shown
    later = await submit(api, "Bo")

    done = await send(api, preview, "/runs/bulk", {"verb": "cancel", "ids": f"{wanted},nobody", "reason": "old"})

    assert "1 of 2 runs were cancelled" in done.text
    assert "there is no run nobody" in done.text
    assert [await state_of(api, id) for id in (wanted, other, later)] == ["cancelled", "queued", "queued"]


async def test_what_failed_is_redriven_from_the_start_or_dismissed_together(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    first, second = await submit(api), await submit(api)
    for run in await worker.claim():
        await worker.fail(run)
    assert links_of((await api.get("/runs/bulk?verb=redrive")).text) == [second, first]
    redrive = {"verb": "redrive", "from": "start", "ids": first}
    assert "1 of 1 runs was redriven" in (await send(api, "/runs/bulk?verb=redrive", "/runs/bulk", redrive)).text
    dismiss = {"verb": "dismiss", "ids": second, "back": "dead"}
    assert "Back to the dead letters" in (await send(api, "/runs/bulk?verb=dismiss", "/runs/bulk", dismiss)).text
    assert "only dead letters can" in (await api.get("/runs/bulk?verb=redrive")).text
    assert (await api.get("/runs/bulk?verb=explode")).status_code == 422


# --- one run --------------------------------------------------------------------------------------


async def test_a_run_shows_its_steps_prompts_answers_cost_and_why(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    run_id = await submit(api)
    queued = (await api.get(f"/runs/{run_id}")).text
    assert "Why it is queued" in queued
    assert f"pilothouse runs cancel {run_id}" in queued
    run = await worker.claim_one()
    asked = {"messages": [{"role": "user", "content": "What is it about?"}], "system": "Be kind.", "tools": []}
    said = {"parts": [{"part_kind": "text", "content": "A lamp."}, {"part_kind": "tool-call", "tool_name": "look"}]}
    await write_step(db, run, "think", kind="model", request=payloads.encode(asked), result=payloads.encode(said))
    tool = {"tool": "look", "arguments": {"order": 7}}
    await write_step(db, run, "look", kind="tool", request=payloads.encode(tool), result='{"total":42.5}')
    running = (await api.get(f"/runs/{run_id}")).text
    assert 'data-pace="2000"' in running
    await worker.settle(run, output=payloads.encode({"greeting": "hello"}))

    page = (await api.get(f"/runs/{run_id}")).text

    for text in ("Be kind.", "What is it about?", "A lamp.", "calls look", "&#34;order&#34;: 7", "42.5", "greeting"):
        assert text in page, text
    assert "Where the time went" in page
    assert "the agent&#39;s own code" in page
    assert "Why it" not in page
    assert 'value="cancel"' not in page


async def test_a_huge_output_is_cut_and_whole_behind_a_link_as_text(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    run_id = await submit(api)
    run = await worker.claim_one()
    huge = payloads.encode({"text": f"{MARKUP} " * 60_000})
    await write_step(db, run, "a/b c", result=huge)
    await worker.settle(run, output=huge)

    page = await api.get(f"/runs/{run_id}")
    whole = await api.get(f"/runs/{run_id}/text/output")
    step = await api.get(f"/runs/{run_id}/text/result", params={"step": "a/b c"})

    assert len(huge) > 2_000_000
    assert len(page.text) < 100_000
    assert f"/runs/{run_id}/text/result?step=a%2Fb+c" in page.text
    for answer in (whole, step):
        assert len(answer.text) > 2_000_000
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("text/secrets", "text/error", "text/result?step=none", "text/result"):
        assert (await api.get(f"/runs/{run_id}/{path}")).status_code == 404, path


async def test_a_failed_run_is_redriven_from_a_step_and_dismissed(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    run_id = await submit(api)
    run = await worker.claim_one()
    await write_step(db, run, "first")
    await worker.fail(run)
    path = f"/runs/{run_id}"
    assert '<option value="step:first">' in (await api.get(path)).text

    refused = await send(api, path, path, {"do": "redrive", "from": "step:none", "reason": "I typed this"})
    assert refused.status_code == 422
    assert "no finished step" in refused.text
    assert 'value="I typed this"' in refused.text
    sent = await send(api, path, path, {"do": "redrive", "from": "step:first"})
    assert sent.headers["location"] == path
    assert "It is queued again." in (await api.get(path)).text
    again = await worker.claim_one()
    await worker.fail(again)
    assert (await send(api, path, path, {"do": "dismiss"})).status_code == 303
    assert 'value="dismiss"' not in (await api.get(path)).text
    assert (await send(api, path, path, {"do": "explode"})).status_code == 422


async def test_a_waiting_run_takes_its_signal_and_keeps_what_was_mistyped(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database
) -> None:
    from pilothouse.control.waits import Wait
    from tests.control.steps import ended, settle

    run_id = await submit(api)
    run = await worker.claim_one()
    await asyncio.to_thread(settle, db, ended(run, "suspended", waits=(Wait("signal", "go ahead", "g"),)))
    path = f"/runs/{run_id}"
    page = (await api.get(path)).text
    assert "Why it waits" in page
    assert "pilothouse runs signal" in page

    wrong = await send(api, path, path, {"do": "signal", "name": "go ahead", "payload": "{oops"})
    assert wrong.status_code == 422
    assert "{oops</textarea>" in wrong.text
    assert "not JSON" in wrong.text
    right = await send(api, path, path, {"do": "signal", "name": "go ahead", "payload": '{"ok": true}'})
    assert right.status_code == 303
    assert [each["payload"] for each in (await api.get(f"{RUNS}/{run_id}/timeline")).json()["signals"]] == [
        {"ok": True}
    ]


async def test_cancel_takes_a_form_of_our_own(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    path = f"/runs/{run_id}"
    assert (await api.post(path, data={"do": "cancel", "form": "0" * 64})).status_code == 403
    assert await state_of(api, run_id) == "queued"
    assert (await send(api, path, path, {"do": "cancel", "reason": "no need"})).status_code == 303
    assert await state_of(api, run_id) == "cancelled"
    assert "It is cancelled." in (await api.get(path)).text


async def test_a_run_that_is_gone_is_not_found(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    token = token_of(await api.get(f"/runs/{run_id}"))
    gone = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")

    for answer in (
        await api.get(f"/runs/{gone}"),
        await api.get(f"/runs/{gone}/text/input"),
        await api.post(f"/runs/{gone}", data={"do": "cancel", "form": token}),
    ):
        assert answer.status_code == 404
        assert "there is no run" in answer.text.lower()


# --- who may ---------------------------------------------------------------------------------------


@pytest.fixture
async def admin(api: httpx2.AsyncClient, db: Database) -> httpx2.AsyncClient:
    """The API, which wants keys from its first request on."""
    made = await keys.create_key(db, "root", KeyRole.ADMIN, tenant=None, expires_at=None, principal="test")
    api.headers["Authorization"] = f"Bearer {made.text}"
    return api


@asynccontextmanager
async def _browser(
    app: FastAPI, db: Database, role: KeyRole, tenant: str | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    made = await keys.create_key(db, f"{role}-{tenant}", role, tenant=tenant, expires_at=None, principal="test")
    async with documented_client(app) as browser:
        await sign_in(browser, made.text)
        yield browser


async def test_a_viewer_sees_runs_and_has_no_buttons(
    app: FastAPI, admin: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    run_id = await submit(admin)
    async with _browser(app, db, KeyRole.VIEWER) as viewer:
        for path in ("/runs", f"/runs/{run_id}", "/runs/bulk?verb=cancel"):
            page = (await viewer.get(path)).text
            assert links_of(page) or run_id in page
            assert "<form" not in re.sub(r'<form[^>]*(method="get"|/sign-out").*?</form>', "", page, flags=re.S), path
        for path in (f"/runs/{run_id}", "/runs/bulk"):
            token = token_of(await viewer.get("/runs"))
            answer = await viewer.post(path, data={"do": "cancel", "verb": "cancel", "ids": run_id, "form": token})
            assert answer.status_code == 403


async def test_a_tenant_sees_and_touches_only_its_own(
    app: FastAPI, admin: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    own, foreign = await submit(admin, tenant="acme"), await submit(admin, tenant="globex")
    async with _browser(app, db, KeyRole.OPERATOR, "acme") as tenant:
        assert links_of((await tenant.get("/runs?tenant=globex")).text) == [own]
        assert links_of((await tenant.get(f"/runs/bulk?verb=cancel&run={own}&run={foreign}")).text) == [own]
        done = await send(tenant, "/runs/bulk?verb=cancel", "/runs/bulk", {"verb": "cancel", "ids": foreign})
        assert "there is no run" in done.text
        for path in (f"/runs/{foreign}", f"/runs/{foreign}/text/input"):
            assert (await tenant.get(path)).status_code == 404
        refused = await send(tenant, f"/runs/{own}", f"/runs/{foreign}", {"do": "cancel"})
        assert refused.status_code == 404
    rows = await db.read(lambda tx: tx.fetch_one("run_by_id", id=foreign))
    assert rows is not None
    assert rows["state"] == "queued"
