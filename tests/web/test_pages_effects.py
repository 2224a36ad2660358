"""The pages of effects and incidents: what is unknown comes first, people resolve it, report it and correct it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse import App, Context, MayHaveHappened
from pilothouse.config import Settings
from pilothouse.control import effects
from pilothouse.control.effects import EffectFilter
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.testing import TestPlatform
from tests.web.browsing import MARKUP, expect_harmless, send, signed_in


def mail() -> App:
    app = App("mail")

    @app.tool(effect="irreversible", platform="email")
    async def send_mail(to: str) -> str:
        if to == "lost":
            raise MayHaveHappened("the answer was lost")
        if to == "nobody":
            raise ValueError("no such person")
        return "sent"

    @app.agent(max_attempts=1)
    async def writer(ctx: Context, to: str = "ada") -> str:
        return str(await ctx.tool(send_mail, to=to))

    return app


@pytest.fixture
async def platform(settings: Settings, db: Database) -> AsyncIterator[TestPlatform]:
    async with TestPlatform(mail(), url=settings.database_url, is_frozen=False) as platform:
        for to in ("ada", "lost", "nobody", MARKUP):
            await platform.submit("writer", {"to": to})
        await platform.run_until_idle()
        yield platform


async def effect_of(api: httpx2.AsyncClient, state: str) -> str:
    """The latest effect in a state; its id."""
    items = (await api.get("/api/v1/effects")).json()["items"]
    return str(next(item["id"] for item in items if item["state"] == state))


async def test_unknown_effects_come_first_then_those_that_failed(
    api: httpx2.AsyncClient, platform: TestPlatform
) -> None:
    page = await api.get("/effects")

    expect_harmless(page)
    assert re.findall(r"<h2>(.+?)</h2>", page.text)[-3:] == ["Outcome unknown", "Failed", "Latest"]
    for state, heading in (("unknown", "Outcome unknown"), ("failed", "Found"), ("succeeded", "Found")):
        found = await api.get("/effects", params={"state": state})
        assert [each for each in re.findall(r"<h2>(.+?)</h2>", found.text) if each[0] in "OFL"] == [heading]
    for filters in ({"agent": "nobody"}, {"tool": "none"}, {"run": "none"}):
        assert "No effect fits" in (await api.get("/effects", params=filters)).text
    for filters in ({"agent": "writer"}, {"tool": "send_mail"}):
        found = await api.get("/effects", params={**filters, "state": "failed"})
        assert found.text.count('href="/effects/') == 1


async def test_effects_are_paged(
    api: httpx2.AsyncClient, platform: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse.web.pages.effects.SHOWN", 1)
    seen, url = [], "/effects?agent=writer"
    for _ in range(4):
        page = await api.get(url)
        seen += re.findall(r'href="/effects/(\w+)"', page.text)
        found = re.search(r'rel="next" href="([^"]+)"', page.text)
        url = found[1].replace("&amp;", "&") if found else ""

    assert (len(seen), len(set(seen)), url) == (4, 4, "")


async def test_an_effect_of_unknown_outcome_is_resolved_on_its_page(
    api: httpx2.AsyncClient, platform: TestPlatform
) -> None:
    url = f"/effects/{await effect_of(api, 'unknown')}"
    page = await api.get(url)
    assert "Nobody knows whether it took place" in page.text
    assert "pilothouse effects resolve" in page.text

    broken = await send(api, url, do="resolve", happened="yes", note="seen", result="{")
    assert (broken.status_code, "not JSON" in broken.text, "seen</textarea>" in broken.text) == (422, True, True)
    assert (await send(api, url, do="resolve", happened="maybe", note="seen")).status_code == 422
    assert (await send(api, url, do="resolve", happened="no", note=" ")).status_code == 422
    done = await send(api, url, do="resolve", happened="yes", note=MARKUP, result='"sent"')
    assert (done.status_code, done.headers["location"]) == (303, url)
    after = await api.get(url)
    expect_harmless(after)
    assert "Nobody knows" not in after.text
    assert (await send(api, url, do="resolve", happened="no", note="seen")).status_code == 409


async def test_an_incident_is_opened_corrected_and_closed(api: httpx2.AsyncClient, platform: TestPlatform) -> None:
    assert "No incident is open" in (await api.get("/incidents")).text
    effect = await effect_of(api, "succeeded")
    assert (await send(api, f"/effects/{effect}", do="report", reason="x", hours="many")).status_code == 422
    opened = await send(api, f"/effects/{effect}", do="report", reason=MARKUP, hours="24", severity="minor")
    url = opened.headers["location"]

    page = await api.get(url)
    expect_harmless(page)
    assert "original" in page.text
    expect_harmless(await api.get("/incidents", params={"severity": "minor"}))
    case = await api.get(f"{url}/case.json")
    assert case.json()["expectation"]["must_not_call"]["tool"] == "send_mail"
    assert (await send(api, url, do="correct", effect="none", note="x")).status_code == 409
    assert (await send(api, url, do="correct", effect=effect, note="an apology")).headers["location"] == url
    assert "1 of 4 corrected" in (await api.get(url)).text
    assert (await send(api, url, do="close", note=" ")).status_code == 422
    assert (await send(api, url, do="close", note="checked")).status_code == 303
    assert 'action="/incidents' not in (await api.get(url)).text
    assert url in (await api.get("/incidents", params={"state": "closed"})).text


async def test_a_viewer_looks_and_a_tenants_key_does_not(app: FastAPI, db: Database, platform: TestPlatform) -> None:
    effect = (await effects.list_effects(db, EffectFilter(is_open=True)))[0]["id"]
    async with signed_in(app, db, "vera", KeyRole.VIEWER) as viewer:
        page = await viewer.get(f"/effects/{effect}")
        assert (page.status_code, 'name="happened"' in page.text, "Open an incident" in page.text) == (
            200,
            False,
            False,
        )
        assert (await send(viewer, f"/effects/{effect}", do="resolve", happened="yes", note="x")).status_code == 403
    async with signed_in(app, db, "otto", KeyRole.OPERATOR) as operator:
        forged = await operator.post(f"/effects/{effect}", data={"form": "0" * 64, "do": "resolve", "happened": "yes"})
        assert forged.status_code == 403
    async with signed_in(app, db, "acme", KeyRole.ADMIN, tenant="acme") as acme:
        for path in ("/effects", f"/effects/{effect}", "/incidents", "/switches"):
            assert (await acme.get(path)).status_code == 403
