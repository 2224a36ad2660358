"""The pages of alerts: what fires and what to do, who looks after it, silences, and what every rule measures."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from pilothouse.control import alerts
from pilothouse.control.alert_notices import Delivery
from pilothouse.control.alerting import Alerting
from pilothouse.control.alerts import AlertFilter
from pilothouse.control.switches import TripOrder, reset_switch, trip_switch
from pilothouse.domain.alert_rules import RULES
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.telemetry.events import Emitter
from tests.web.browsing import MARKUP, become, press, text_of, token_of


async def look(db: Database) -> None:
    """One turn of the chore."""
    rules = [replace(rule, keep_seconds=0.0) for rule in RULES]
    await Alerting(db, rules, UTC_CALENDAR, Delivery(), Emitter()).evaluate()


@pytest.fixture
async def alert_id(db: Database) -> str:
    """An alert that fires, with markup in its text."""
    await trip_switch(db, TripOrder("agent:hello", reason=MARKUP), principal="test")
    await look(db)
    (row,) = await alerts.list_alerts(db, AlertFilter(rule="switch-tripped"))
    return str(row["id"])


async def test_nothing_fires_and_every_rule_tells_what_it_measures(api: httpx2.AsyncClient) -> None:
    page = text_of(await api.get("/alerts"))

    assert "Nothing fires" in page
    assert all(rule.name in page for rule in RULES)


async def test_what_fires_is_on_the_first_page_and_leads_to_what_to_do(
    api: httpx2.AsyncClient, db: Database, alert_id: str
) -> None:
    for path in ("/", "/alerts", f"/alerts/{alert_id}"):
        page = await api.get(path)
        assert "switch-tripped" in text_of(page)
        assert MARKUP not in page.text
    assert 'href="/runbooks/runaway-agent"' in page.text

    await reset_switch(db, "agent:hello", principal="test")
    await look(db)
    assert "Nothing fires" in text_of(await api.get("/alerts"))
    assert "Resolved" in text_of(await api.get(f"/alerts/{alert_id}"))


async def test_an_alert_is_acknowledged_once(api: httpx2.AsyncClient, alert_id: str) -> None:
    page, path = f"/alerts/{alert_id}", f"/alerts/{alert_id}/acknowledge"

    assert (await press(api, page, path, reason="on it")).headers["location"] == page

    shown = await api.get(page)
    assert "api:local" in text_of(shown)
    assert path not in shown.text
    again = await api.post(path, data={"form": token_of(await api.get("/alerts"))})
    assert (again.status_code, "acknowledged already" in again.text) == (409, True)


async def test_a_silence_is_made_shown_and_ended(api: httpx2.AsyncClient, alert_id: str) -> None:
    made = await press(api, "/alerts", "/alerts/silences", rule="switch-*", reason="exercise", hours="4")
    assert made.status_code == 303
    page = await api.get("/alerts")
    assert "silenced" in text_of(page)
    assert "exercise" in text_of(page)

    (silence,) = (await api.get("/api/v1/silences")).json()["items"]
    await press(api, "/alerts", f"/alerts/silences/{silence['id']}/end")
    assert "No message is kept back." in text_of(await api.get("/alerts"))


@pytest.mark.parametrize(("name", "value"), [("rule", "swich"), ("hours", "ever"), ("reason", "  ")])
async def test_a_silence_that_cannot_be_is_told_with_what_was_typed(
    api: httpx2.AsyncClient, name: str, value: str
) -> None:
    typed = {"rule": "queue-age", "subject": "agent:hello*", "reason": "exercise", "hours": "1", name: value}

    refused = await press(api, "/alerts", "/alerts/silences", **typed)

    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert 'value="agent:hello*"' in refused.text


async def test_a_viewer_sees_alerts_and_no_buttons(api: httpx2.AsyncClient, db: Database, alert_id: str) -> None:
    await become(api, db, KeyRole.VIEWER)

    page = await api.get("/alerts")

    assert "switch-tripped" in text_of(page)
    assert "/acknowledge" not in page.text
    assert 'action="/alerts/silences"' not in page.text
    assert (await api.post(f"/alerts/{alert_id}/acknowledge", data={"form": "x"})).status_code == 403
