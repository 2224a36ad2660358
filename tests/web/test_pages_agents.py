"""The pages of agents: how each does, what it may do alone, and that the buttons do what they say."""

from __future__ import annotations

import httpx2
import pytest

from pilothouse.control import autonomy, history, switches
from pilothouse.control.autonomy import LevelChange
from pilothouse.control.switches import TripOrder
from pilothouse.domain.autonomy import Level
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.web import access
from tests.web.browsing import MARKUP, become, press, text_of
from tests.web.platform import FakeWorker, agent_card

PAGE = "/agents/hello"


async def end_run(api: httpx2.AsyncClient, worker: FakeWorker, *, fails: bool = False) -> None:
    await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})
    run = await worker.claim_one()
    await (worker.fail(run) if fails else worker.settle(run))


async def test_an_agent_shows_how_it_does(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await history.sample(db)
    await end_run(api, worker)
    for fails in (True, True):
        await end_run(api, worker, fails=fails)
    await history.sample(db)

    page = text_of(await api.get(PAGE))

    assert "Fails 33.3% of its runs succeeded today." in page
    assert "Success today 33.3% 3 ended" in page
    assert "of the last 3 that ended" in page
    assert "f registered 3 33.3%" in page
    listed = text_of(await api.get("/agents"))
    assert "hello Says hello. fails 33.3% of its runs succeeded today 0 0 0 3 33.3% $0.00" in listed
    told = (await api.get("/api/v1/agents/hello/health")).json()
    assert told["health"] == {"tone": "red", "word": "fails", "reasons": ["33.3% of its runs succeeded today"]}
    assert (told["ended_today"], told["measured_runs"]) == ({"succeeded": 1, "failed": 2}, 3)


async def test_an_agent_is_suspended_and_goes_on(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    done = await press(api, PAGE, f"{PAGE}/suspend", mode="drain", reason="too dear")
    assert done.headers["location"] == PAGE
    assert (await switches.show_switch(db, "agent:hello"))["mode"] == "drain"
    assert "Stopped Switch agent:hello is tripped (drain)" in text_of(await api.get(PAGE))
    assert "too dear" in text_of(await api.get(PAGE))
    assert "hello Says hello. stopped" in text_of(await api.get("/agents"))
    assert (await api.get("/api/v1/agents/hello/health")).json()["switch"]["scope"] == "agent:hello"

    await press(api, PAGE, f"{PAGE}/resume")

    assert await switches.list_switches(db) == []
    assert (await press(api, PAGE, f"{PAGE}/suspend", mode="kill")).status_code == 422


async def test_a_wider_switch_stops_it_too_and_is_not_reset_here(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await switches.trip_switch(db, TripOrder("global"), principal="test")

    page = await api.get(PAGE)

    assert "switch global is tripped" in text_of(await api.get("/agents"))
    assert f"{PAGE}/resume" not in page.text


async def test_autonomy_is_taken_away_and_given_by_evidence_only(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    done = await press(api, PAGE, f"{PAGE}/demote", action="*", to="supervised", reason=MARKUP)
    assert done.status_code == 303

    page = await api.get(PAGE)
    assert "every other action supervised" in text_of(page)
    assert MARKUP in text_of(page)
    assert MARKUP not in page.text
    assert f"{PAGE}/promote" not in page.text, "there is no evidence"
    with pytest.raises(AssertionError):
        await press(api, PAGE, f"{PAGE}/promote", action="pay")
    levels = await autonomy.list_autonomy(db, "hello", default=Level.ASSISTED)
    assert [each["level"] for each in levels] == ["supervised"]


async def test_promoting_without_evidence_says_what_is_missing(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await autonomy.demote(db, LevelChange("hello", "pay"), reason="", default=Level.ASSISTED, principal="test")
    await api.get(PAGE)
    token = (await api.get(PAGE)).text.partition('name="form" value="')[2].partition('"')[0]

    refused = await api.post(f"{PAGE}/promote", data={"form": token, "action": "pay"})

    assert refused.status_code == 409
    assert "0 of 50 supervised actions are decided" in refused.text
    assert "pay supervised f 0 of 0" in text_of(await api.get(PAGE))


async def test_a_viewer_sees_no_buttons_and_presses_none(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await become(api, db, KeyRole.VIEWER)

    page = await api.get(PAGE)
    assert "/suspend" not in page.text
    assert "/demote" not in page.text
    assert (await api.post(f"{PAGE}/suspend", data={"form": "x"})).status_code == 403


async def test_a_forged_form_suspends_nothing(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await api.get(PAGE)

    assert (await api.post(f"{PAGE}/suspend", data={"form": "0" * 64})).status_code == 403
    assert await switches.list_switches(db) == []


async def test_a_key_of_a_tenant_sees_definitions_and_changes_nothing(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FRESH_SECONDS", 0.0)
    await end_run(api, worker, fails=True)
    await history.sample(db)
    await become(api, db, KeyRole.OPERATOR, tenant="acme")

    listed, page = await api.get("/agents"), await api.get(PAGE)

    assert "hello Says hello." in text_of(listed)
    assert "Success" not in listed.text + page.text
    assert "Autonomy" not in page.text
    assert "/suspend" not in page.text
    submit = await api.get("/submit")
    token = submit.text.partition('name="form" value="')[2].partition('"')[0]
    for verb in ("suspend", "resume", "promote", "demote"):
        answer = await api.post(f"{PAGE}/{verb}", data={"form": token})
        assert answer.status_code == 403
        assert "shared by all tenants" in answer.text
    assert await switches.list_switches(db) == []


async def test_descriptions_are_text_and_unknown_agents_are_said_to_be_so(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await FakeWorker(db).start(agent_card("other", description=MARKUP))

    for path in ("/agents", "/agents/other"):
        page = await api.get(path)
        assert MARKUP not in page.text
        assert MARKUP in text_of(page)
    missing = await api.get("/agents/helo")
    assert missing.status_code == 404
    assert "did you mean" in missing.text
