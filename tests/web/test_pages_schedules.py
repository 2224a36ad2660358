"""The pages of schedules: what they show, and that their buttons do what they say."""

from __future__ import annotations

import re

import httpx2
import pytest

from pilothouse.control import schedules
from pilothouse.control.schedules import ScheduleCard
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from tests.web.browsing import MARKUP, become, press, text_of
from tests.web.platform import FakeWorker


@pytest.fixture
async def declared(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> httpx2.AsyncClient:
    cards = [ScheduleCard("nightly", "hello", "0 2 * * *", "Europe/Paris", f'{{"name":"{MARKUP}"}}')]
    await db.transaction(lambda tx: schedules.register(tx, "greetings", cards, principal="test"))
    return api


async def test_a_schedule_is_listed_fired_paused_and_resumed(declared: httpx2.AsyncClient) -> None:
    assert "nightly active hello 0 2 * * * Europe/Paris" in text_of(await declared.get("/schedules"))

    fired = await press(declared, "/schedules", "/schedules/nightly/fire", **{"from": "list"})
    assert fired.headers["location"] == "/schedules"
    paused = await press(declared, "/schedules/nightly", "/schedules/nightly/pause")
    assert paused.headers["location"] == "/schedules/nightly"

    page = await declared.get("/schedules/nightly")
    assert re.search(r"paused .* fired 01", text_of(page))
    assert re.search(r'href="/runs/[0-9a-f-]{36}"', page.text)
    assert "It is paused and does not fire." in text_of(page)
    assert (await press(declared, "/schedules", "/schedules/nightly/resume")).status_code == 303
    assert page.text.count("<time") < (await declared.get("/schedules/nightly")).text.count("<time")


async def test_what_a_schedule_submits_is_text(declared: httpx2.AsyncClient) -> None:
    page = await declared.get("/schedules/nightly")

    assert MARKUP not in page.text
    assert MARKUP in text_of(page)


async def test_a_viewer_sees_no_buttons_and_presses_none(declared: httpx2.AsyncClient, db: Database) -> None:
    await become(declared, db, KeyRole.VIEWER)

    assert "/pause" not in (await declared.get("/schedules")).text
    assert (await declared.post("/schedules/nightly/pause", data={"form": "x"})).status_code == 403


async def test_a_forged_form_fires_nothing(declared: httpx2.AsyncClient, db: Database) -> None:
    await declared.get("/schedules")

    assert (await declared.post("/schedules/nightly/fire", data={"form": "0" * 64})).status_code == 403
    assert (await schedules.show_schedule(db, "nightly"))["last_run_id"] is None


async def test_a_schedule_that_is_not_there_is_said_to_be_so(declared: httpx2.AsyncClient) -> None:
    page = await declared.get("/schedules/nihgtly")

    assert page.status_code == 404
    assert "did you mean" in page.text
