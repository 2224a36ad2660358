"""The page of budgets: how limits stand, and that its forms set and grant what they say."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx2
import pytest

from pilothouse.control import limits
from pilothouse.control.waits import Wait
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.store.database import Database
from tests.control.steps import ended, settle
from tests.control.test_budgets import epoch_of
from tests.web.browsing import MARKUP, become, press, send, text_of
from tests.web.platform import FakeWorker
from tests.web.test_budgets import begin, spend

PAGE = "/budgets"


async def set_limit(db: Database, scope: str, amount: int, period: Period = Period.DAY) -> None:
    await limits.set_limit(db, Limit(scope, period, Unit.MICROUSD, amount), principal="test")


async def test_the_tightest_limit_stands_first(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    assert "No limit is set" in text_of(await api.get(PAGE))
    await set_limit(db, "global", 10_000_000)
    await set_limit(db, "agent:hello", 1_000_000)
    await spend(db, await begin(api, worker), 950_000)

    page = text_of(await api.get(PAGE))

    assert "1 with little or nothing left The tightest is agent:hello" in page
    assert page.index("agent:hello dollars") < page.index("global dollars")
    assert "95.0% $0.05 of $1.00 free $0.95 $0.00 $0.05 $1.00" in page


async def test_a_limit_is_set_and_lifted(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    form = {"scope": "agent:hello", "amount": "2.50", "unit": "usd", "period": "day", "reason": "a try"}
    assert (await press(api, PAGE, f"{PAGE}/set", **form)).headers["location"] == PAGE
    assert "agent:hello per day is $2.50" in text_of(await api.get(PAGE))
    assert "$2.50" in text_of(await api.get("/agents/hello"))

    await press(api, PAGE, f"{PAGE}/set", **form | {"amount": "none"})

    assert "lifted" in text_of(await api.get(PAGE))


async def test_what_is_refused_stays_typed(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    for wrong, told in (
        ({"scope": MARKUP}, "is no scope"),
        ({"amount": "much"}, "is no amount"),
        ({"unit": "mood"}, "the unit is"),
        ({"period": "year"}, "year"),
    ):
        form = {"scope": "agent:hello", "amount": "2", "unit": "usd", "period": "day"} | wrong
        refused = await press(api, PAGE, f"{PAGE}/set", **form)
        assert refused.status_code == 422
        assert told in refused.text
        assert MARKUP not in refused.text
    assert 'value="agent:hello"' in refused.text


async def test_a_run_is_granted_more(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await set_limit(db, "run:*", 1000, Period.RUN)
    run = await begin(api, worker)
    await spend(db, run, 900)

    done = await press(api, PAGE, f"{PAGE}/grant", run=run.run_id, extra="0.01", grant_unit="usd")

    assert done.status_code == 303
    assert f"Run {run.run_id} may use $0.0109." in text_of(await api.get(PAGE))
    refused = await press(api, PAGE, f"{PAGE}/grant", run="nobody", extra="1", grant_unit="usd")
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("scope", "says"),
    [("run", "Grant $0.01 more, and go on"), ("global", "Raise the limit of global to $0.02 per day, and go on")],
)
async def test_a_run_that_waits_for_room_has_a_button_that_lets_it_go_on(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker, scope: str, says: str
) -> None:
    run = await begin(api, worker)
    own = f"run:{run.run_id}"
    account, period = (own, Period.RUN) if scope == "run" else (scope, Period.DAY)
    await set_limit(db, account, 1000, period)
    at = "run" if scope == "run" else await today(api)
    await spend(db, run, 900)
    waits = (Wait("limit", f"{account}/{at}/microusd@{epoch_of(db)}", "ask"),)
    await asyncio.to_thread(settle, db, ended(run, "suspended", waits=waits))
    page = f"/runs/{run.run_id}"
    shown = await api.get(page)
    assert says in text_of(shown)
    (form,) = [each for each in re.findall(r"<form.*?</form>", shown.text, re.DOTALL) if 'value="room"' in each]
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))

    done = await api.post(page, data=fields)
    again = await api.post(page, data=fields | {"amount": "0.0009"})

    assert [done.status_code, again.status_code] == [303, 303]
    assert (await worker.claim_one()).run_id == run.run_id, "it goes on"
    (limit,) = [each for each in await budget_of(api, run.run_id) if each["account"] == account]
    assert limit["limit"] == (10_900 if scope == "run" else 20_000), "a late press takes nothing away"
    await become(api, db, KeyRole.OPERATOR, tenant="default")
    refused = await send(api, page, **fields)
    assert refused.status_code == 403


async def today(api: httpx2.AsyncClient) -> str:
    (listed,) = (await api.get("/api/v1/budgets")).json()["items"]
    return str(listed["period"])


async def budget_of(api: httpx2.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    return list((await api.get(f"/api/v1/runs/{run_id}/budget")).json()["rules"])


async def test_a_viewer_a_tenant_and_a_forged_form_set_nothing(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await become(api, db, KeyRole.VIEWER)
    assert "/budgets/set" not in (await api.get(PAGE)).text
    assert (await api.post(f"{PAGE}/set", data={"form": "x"})).status_code == 403
    await become(api, db, KeyRole.OPERATOR)
    assert (await api.post(f"{PAGE}/set", data={"form": "0" * 64, "scope": "global"})).status_code == 403
    await become(api, db, KeyRole.OPERATOR, tenant="acme")
    assert (await api.get(PAGE)).status_code == 403
