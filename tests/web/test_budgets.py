"""Budgets, costs and reservations over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.clock import new_id
from pilothouse.control import keys, ledger, limits
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.ledger import Charge, Hold
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.store.database import Database
from pilothouse.web import access
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

BUDGETS, RUNS = "/api/v1/budgets", "/api/v1/runs"


async def begin(api: httpx2.AsyncClient, worker: FakeWorker, tenant: str = "default") -> ClaimedRun:
    answered = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}, "tenant": tenant})
    assert answered.status_code == 202
    return await worker.claim_one()


async def hold(db: Database, run: ClaimedRun, microusd: int) -> str:
    payer = Payer(run.run_id, run.tenant, run.agent, None, "openai", None)
    wanted = Hold(new_id(), "ask", run.attempt, payer, Amounts(microusd, 10), "openai:m")
    (answer,) = await db.transaction(lambda tx: ledger.reserve(tx, [wanted], UTC_CALENDAR))
    assert isinstance(answer, float)
    return wanted.id


async def spend(db: Database, run: ClaimedRun, microusd: int) -> None:
    charge = Charge(await hold(db, run, microusd), Amounts(microusd, 10))
    await db.transaction(lambda tx: ledger.settle(tx, [charge], UTC_CALENDAR))


async def set_limit(db: Database, scope: str, amount: int, period: Period = Period.DAY) -> None:
    await limits.set_limit(db, Limit(scope, period, Unit.MICROUSD, amount), principal="test")


async def test_limits_are_set_listed_and_lifted(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    wanted = {"scope": "tenant:default", "period": "day", "unit": "microusd", "amount": 5000}
    assert (await api.put(BUDGETS, json=wanted)).json() == wanted | {"before": None, "over": []}
    run = await begin(api, worker)
    await spend(db, run, 4000)

    (listed,) = (await api.get(BUDGETS)).json()["items"]
    assert (listed["account"], listed["settled"], listed["free"], listed["level"]) == (
        "tenant:default",
        4000,
        1000,
        "fine",
    )
    assert (listed["source"], listed["set_by"]) == ("operator", "api:local")
    lower = (await api.put(BUDGETS, json=wanted | {"amount": 1000, "reason": "too dear"})).json()
    assert (lower["before"], lower["over"]) == (5000, ["tenant:default"])
    assert (await api.put(BUDGETS, json=wanted | {"amount": None})).json()["amount"] is None
    assert (await api.get(BUDGETS)).json()["items"][0]["level"] == "no_limit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scope": "tenants:x"}, "is no scope; write global"),
        ({"period": "run"}, "is per day or month, not per run"),
        ({"unit": "calls"}, "a limit on calls is for runs"),
        ({"amount": 2**60}, "it must be at most"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused(
    api: httpx2.AsyncClient, changes: dict[str, Any], message: str
) -> None:
    wanted = {"scope": "tenant:x", "period": "day", "unit": "microusd", "amount": 1} | changes

    refused = await api.put(BUDGETS, json=wanted)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert message in refused.json()["detail"]


async def test_a_run_is_explained_and_granted_more(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await set_limit(db, "run:*", 1000, Period.RUN)
    run = await begin(api, worker)
    await spend(db, run, 900)

    told = (await api.get(f"{RUNS}/{run.run_id}/budget")).json()
    assert [(rule["scope"], rule["settled"], rule["free"], rule["did"]) for rule in told["rules"]] == [
        ("run:*", 900, 100, [])
    ]
    granted = (await api.post(f"{RUNS}/{run.run_id}/grant", json={"amount": 600})).json()
    assert granted == {"run": run.run_id, "unit": "microusd", "used": 900, "limit": 1500, "waits": []}
    shown = (await api.get(f"{RUNS}/{run.run_id}/timeline")).json()["budget"]
    assert (shown["cost_microusd"], shown["reserved_microusd"], shown["limits"]) == (900, 0, [])
    assert (await api.get(f"{RUNS}/nobody/budget")).status_code == 404
    assert (await api.post(f"{RUNS}/{run.run_id}/grant", json={"amount": 0})).status_code == 422


async def test_costs_are_reported_by_what_is_asked_for(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    run = await begin(api, worker)
    await spend(db, run, 900)
    await worker.settle(run)

    told = (await api.get("/api/v1/costs", params={"by": "model"})).json()
    (line,) = told["items"]
    assert (line["model"], line["cost_microusd"], line["share"], line["microusd_per_success"]) == (
        "openai:m",
        900,
        1.0,
        900,
    )
    before = (await api.get("/api/v1/costs", params={"by": "day", "from": "2020-01-01", "to": "2020-12-31"})).json()
    assert (before["items"], before["from"]) == ([], "2020-01-01")
    assert (await api.get("/api/v1/costs", params={"by": "mood"})).status_code == 422
    backwards = await api.get("/api/v1/costs", params={"from": "2020-12-31", "to": "2020-01-01"})
    assert (backwards.status_code, backwards.json()["errors"][0]["field"]) == (422, "from")


async def test_a_providers_export_is_compared_and_booked_once_its_day_is_over(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    await spend(db, await begin(api, worker), 900)
    (day,) = [each["day"] for each in (await api.get("/api/v1/costs", params={"by": "day"})).json()["items"]]
    wanted = {"csv": f"when,model,cost\n{day},m,0.0012\n", "provider": "openai", "columns": {"day": "when"}}

    told = (await api.post("/api/v1/costs/reconcile", json=wanted)).json()
    booked = (await api.post("/api/v1/costs/reconcile", json=wanted | {"book": True})).json()["booked"]

    (row,) = told["items"]
    assert (row["ours"], row["ours_microusd"], row["difference_microusd"]) == (["openai:m"], 900, 300)
    assert (told["provider"], told["booked"]) == ("openai", None)
    assert (booked["adjusted_microusd"], booked["left"]) == (0, [{"day": day, "model": "m"}]), "the day goes on"
    refused = await api.post("/api/v1/costs/reconcile", json={"csv": "x\n1\n"})
    assert "no column for the day" in refused.json()["detail"]


async def test_reservations_of_ended_attempts_are_listed_and_settled(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker
) -> None:
    run = await begin(api, worker)
    id = await hold(db, run, 500)
    await worker.fail(run)

    (listed,) = (await api.get("/api/v1/reservations")).json()["items"]
    assert (listed["id"], listed["run_state"], listed["microusd"]) == (id, "failed", 500)
    assert (await api.get("/api/v1/reservations", params={"run": "other"})).json()["items"] == []
    settled = await api.post(f"/api/v1/reservations/{id}/settle", json={"microusd": 120})
    assert settled.json()["state"] == "settled"
    again = await api.post(f"/api/v1/reservations/{id}/settle", json={"microusd": 120})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_the_overview_says_what_is_spent(api: httpx2.AsyncClient, db: Database, worker: FakeWorker) -> None:
    await set_limit(db, "global", 2000)
    await spend(db, await begin(api, worker), 900)

    told = (await api.get("/api/v1/overview")).json()["spending"]

    assert (told["day"]["settled_microusd"], told["day"]["limit_microusd"]) == (900, 2000)
    assert (told["month"]["settled_microusd"], told["month"]["limit_microusd"], told["blocked_runs"]) == (900, None, 0)


async def test_a_key_of_a_tenant_sees_its_own_money_and_sets_nothing(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FRESH_SECONDS", 0.0)
    for scope in ("global", "tenant:*", "agent:*"):
        await set_limit(db, scope, 10_000)
    own, other = await begin(api, worker, "acme"), await begin(api, worker, "other")
    await spend(db, own, 100)
    await spend(db, other, 300)
    held = await hold(db, other, 50)
    await worker.fail(other)
    made = await keys.create_key(db, "acme", KeyRole.OPERATOR, tenant="acme", expires_at=None, principal="test")

    async with documented_client(app) as acme:
        acme.headers["authorization"] = f"Bearer {made.text}"
        assert [each["account"] for each in (await acme.get(BUDGETS)).json()["items"]] == ["tenant:acme"]
        costs = (await acme.get("/api/v1/costs", params={"by": "tenant"})).json()["items"]
        assert [(each["tenant"], each["cost_microusd"]) for each in costs] == [("acme", 100)]
        assert (await acme.get("/api/v1/reservations")).json()["items"] == []
        rules = (await acme.get(f"{RUNS}/{own.run_id}/budget")).json()["rules"]
        assert [rule["account"] for rule in rules] == ["tenant:acme"]
        for path in (BUDGETS, "/api/v1/costs", "/api/v1/reservations"):
            assert (await acme.get(path, params={"tenant": "other"})).status_code == 404
        assert (await acme.put(BUDGETS, json={})).status_code == 403
        assert (await acme.post(f"{RUNS}/{own.run_id}/grant", json={"amount": 1})).status_code == 403
        assert (await acme.get(f"{RUNS}/{other.run_id}/budget")).status_code == 404
        assert (await acme.post(f"/api/v1/reservations/{held}/settle", json={"microusd": 0})).status_code == 403
