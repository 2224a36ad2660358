"""What is of another tenant does not exist: every route and verb is tried with the key of another tenant.

The routes come from the routers themselves. A new one names a thing of a noun that `MAKERS` can make for a tenant, or
its noun is in `OF_THE_PLATFORM` or `SHARED`; a list has its noun in `MAKERS`, a submit its bodies in `BODIES`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control import approvals, audit, blobs, effects, erasures, keys, ledger, limits, schedules
from pilothouse.control.approvals import Filter
from pilothouse.control.effects import Intent
from pilothouse.control.ledger import Charge, Hold
from pilothouse.control.schedules import ScheduleCard
from pilothouse.control.waits import Wait
from pilothouse.domain.budgets import tell_reached
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.errors import ReachedLimit
from pilothouse.store.database import Database
from pilothouse.web.server import ROUTERS
from tests.control.decisions import decide
from tests.control.steps import ended, settle
from tests.control.test_budgets import epoch_of
from tests.web.documented import documented_client
from tests.web.events import reading, serving
from tests.web.platform import FakeWorker, agent_card

API = "/api/v1/"
RUNS = "/api/v1/runs"
OWN, OTHER = "acme", "globex"


@dataclass(frozen=True)
class World:
    """Two tenants with a key each, and one who sees all; every value of a tenant's has the tenant's name in it."""

    db: Database
    worker: FakeWorker
    clients: Mapping[str, httpx2.AsyncClient]

    @property
    def everyone(self) -> httpx2.AsyncClient:
        return self.clients[""]

    async def submit(self, tenant: str, **changes: Any) -> str:
        body = {"agent": "hello", "input": {"name": f"of-{tenant}"}, "tenant": tenant} | changes
        return str((await self.everyone.post(RUNS, json=body)).json()["id"])

    async def fail_one(self, tenant: str) -> str:
        run_id = await self.submit(tenant)
        claimed = {run.run_id: run for run in await self.worker.claim()}
        await self.worker.fail(claimed[run_id])
        return run_id


async def make_run(world: World, tenant: str) -> str:
    return await world.submit(tenant)


async def make_dead(world: World, tenant: str) -> str:
    return await world.fail_one(tenant)


async def make_schedule(world: World, tenant: str) -> str:
    card = ScheduleCard(f"nightly-{tenant}", "hello", "0 2 * * *", input=f'{{"name":"of-{tenant}"}}', tenant=tenant)
    await world.db.transaction(lambda tx: schedules.register(tx, f"app-{tenant}", [card], principal="test"))
    return card.name


async def make_record(world: World, tenant: str) -> str:
    await world.submit(tenant)
    (record, *_) = await audit.tail(world.db, tenant=tenant)
    return str(record["seq"])


async def make_effect(world: World, tenant: str, id: str = "") -> str:
    run_id = await world.submit(tenant)
    arguments = f'{{"to":"of-{tenant}"}}'
    intent = Intent(
        id or run_id,
        run_id,
        "send",
        1,
        tenant,
        "hello",
        "send",
        None,
        "write",
        payloads.digest(arguments),
        arguments,
        "f",
    )
    await world.db.transaction(lambda tx: effects.write(tx, [intent], []))
    return intent.id


async def make_incident(world: World, tenant: str) -> str:
    body = {"effect": await make_effect(world, tenant), "reason": f"of-{tenant}"}
    return str((await world.clients[tenant].post("/api/v1/incidents", json=body)).json()["id"])


async def make_approval(world: World, tenant: str) -> str:
    run_id = await world.submit(tenant)
    decide(world.db, "approve", run_id=run_id, tenant=tenant, key=f"of-{tenant}")
    wanted = Filter(run_id=run_id)
    (row,) = await approvals.list_approvals(world.db, wanted)
    return str(row["id"])


async def make_limit(world: World, tenant: str) -> str:
    limit = Limit(f"tenant:{tenant}", Period.DAY, Unit.MICROUSD, 5)
    await limits.set_limit(world.db, limit, principal="test")
    return limit.scope


async def make_cost(world: World, tenant: str) -> str:
    """A sum that only this tenant has spent."""
    microusd = len(tenant) * 1_000_003
    charge = Charge(await make_reservation(world, tenant), Amounts(microusd))
    await world.db.transaction(lambda tx: ledger.settle(tx, [charge], UTC_CALENDAR))
    return str(microusd)


async def make_reservation(world: World, tenant: str) -> str:
    """One whose attempt has ended before it could say what its call has cost."""
    run_id = await world.submit(tenant)
    claimed = {run.run_id: run for run in await world.worker.claim()}
    payer = Payer(run_id, tenant, "hello")
    wanted = Hold(new_id(), f"of-{tenant}", claimed[run_id].attempt, payer, Amounts(5))
    await world.db.transaction(lambda tx: ledger.reserve(tx, [wanted], UTC_CALENDAR))
    await world.worker.fail(claimed[run_id])
    return wanted.id


MAKERS: dict[str, Callable[[World, str], Awaitable[str]]] = {
    "runs": make_run,
    "dead": make_dead,
    "schedules": make_schedule,
    "audit": make_record,
    "effects": make_effect,
    "incidents": make_incident,
    "approvals": make_approval,
    "budgets": make_limit,
    "costs": make_cost,
    "reservations": make_reservation,
}
"""How to make one thing of a noun for a tenant; gives its name, as it stands in its address."""

OF_THE_PLATFORM = {
    "alert-rules",
    "alerts",
    "audit/verification",
    "autonomy",
    "breakers",
    "calibration",
    "costs/reconcile",
    "history",
    "keys",
    "metrics",
    "overview",
    "policies",
    "profile",
    "reservations/{id}/settle",
    "runbooks",
    "runs/{id}/grant",
    "silences",
    "stability",
    "switches",
    "tenants",
    "workers",
}
"""Nouns, or whole addresses, that are no tenant's: refused with 403."""

SHARED = {"agents", "agents/{name}"}
"""Addresses of definitions that all tenants share: to be read by each, and changed by none. What else agents have is
counted over all tenants.
"""

BODIES: dict[str, Callable[[str], Any]] = {
    "runs": lambda tenant: {"agent": "hello", "input": {"name": "x"}, "tenant": tenant},
    "runs:cancel": lambda tenant: {"tenant": tenant, "reason": f"of-{tenant}"},
    "runs:redrive": lambda tenant: {"tenant": tenant},
    "dead/redrive": lambda tenant: {"tenant": tenant},
    "dead/dismiss": lambda tenant: {"tenant": tenant},
    "incidents": lambda tenant: {"effect": f"effect-of-{tenant}", "reason": "x"},
}
"""What a POST to an address without names takes, with the tenant in it."""

FOR_OPERATORS_OF_ALL = {"budgets"}
"""What a tenant may read and not change: what it may spend is for others to say."""

TRIED_BY_THEMSELVES = {"runs:batch", "events"}


@pytest.fixture
async def world(app: FastAPI, db: Database) -> AsyncIterator[World]:
    worker = FakeWorker(db)
    await worker.start(agent_card("hello"), agent_card("pilothouse.webhook", input_schema="{}"))
    clients = {}
    for tenant in ("", OWN, OTHER):
        made = await keys.create_key(
            db, f"key-of-{tenant}", KeyRole.ADMIN, tenant=tenant or None, expires_at=None, principal="test"
        )
        clients[tenant] = await documented_client(app).__aenter__()
        clients[tenant].headers["authorization"] = f"Bearer {made.text}"
    yield World(db, worker, clients)
    for client in clients.values():
        await client.__aexit__(None, None, None)


def addresses() -> list[tuple[str, str]]:
    """Every method and address of the API; what pages show is tried with them."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {(method, route.path) for route in routes for method in route.methods or ()}
    return sorted((method, path) for method, path in found if path.startswith(API) and method != "HEAD")


def noun_of(path: str) -> str:
    return path.removeprefix(API).strip("/").split("/")[0]


def is_named(path: str) -> bool:
    return bool(re.match(rf"{API}[^/]+/{{", path))


def fill(path: str, name: str) -> str:
    """The address of the thing `name`; other names in it, such as a signal's, are any."""
    return re.sub(r"{\w+}", "any", re.sub(r"{\w+}", name, path, count=1))


def is_of_the_platform(path: str) -> bool:
    return noun_of(path) in OF_THE_PLATFORM or path.removeprefix(API) in OF_THE_PLATFORM


NAMED = [(method, path) for method, path in addresses() if is_named(path)]
PLAIN = [(method, path) for method, path in addresses() if not is_named(path)]


@pytest.mark.parametrize(("method", "path"), NAMED)
async def test_a_thing_of_another_tenant_does_not_exist(world: World, method: str, path: str) -> None:
    noun = noun_of(path)
    own = world.clients[OWN]
    is_shared = method == "GET" and path.removeprefix(API) in SHARED
    if is_of_the_platform(path) or (noun in SHARED and not is_shared):
        answered = await own.request(method, fill(path, "hello"), json={} if method != "GET" else None)
        assert answered.status_code == 403, answered.text
        return
    if is_shared:
        assert (await own.get(fill(path, "hello"))).status_code == 200
        return
    if noun not in MAKERS:
        pytest.fail(
            f"{method} {path} names one of the {noun!r}, and nobody has said whose it is: add to MAKERS how to make "
            "one for a tenant (and to control.tenants.OWNED how its owner is found), or the noun to OF_THE_PLATFORM"
        )
    mine, theirs = await MAKERS[noun](world, OWN), await MAKERS[noun](world, OTHER)
    body: Any = {} if method != "GET" else None

    refused = await own.request(method, fill(path, theirs), json=body)
    missing = await own.request(method, fill(path, nobodys(theirs)), json=body)
    assert (refused.status_code, missing.status_code) == (404, 404), refused.text
    told = refused.text.replace(theirs, "THEIRS")
    assert told == missing.text.replace(nobodys(theirs), "THEIRS"), "it is told apart from what does not exist"
    assert f"of-{OTHER}" not in refused.text
    if not path.endswith("/events"):
        allowed = await own.request(method, fill(path, mine), json=body)
        assert allowed.status_code not in (403, 404), f"its own tenant's is refused too: {allowed.text}"


def nobodys(name: str) -> str:
    """A name of the same form that nothing has."""
    return "99999999" if name.isdecimal() else f"{name[:-1]}{'0' if name[-1] != '0' else '1'}"


@pytest.mark.parametrize(("method", "path"), [each for each in PLAIN if each[0] == "GET"])
async def test_a_list_shows_only_what_is_the_tenants_own(world: World, method: str, path: str) -> None:
    noun, own = noun_of(path), world.clients[OWN]
    if is_of_the_platform(path):
        assert (await own.get(path)).status_code == 403
        return
    if noun in SHARED or noun in TRIED_BY_THEMSELVES:
        return
    if noun not in MAKERS:
        pytest.fail(f"GET {path} lists {noun!r}: add to MAKERS how to make one, or add the noun to OF_THE_PLATFORM")
    mine, theirs = await MAKERS[noun](world, OWN), await MAKERS[noun](world, OTHER)

    listed = await own.get(path, params={"limit": 200})
    assert listed.status_code == 200
    assert mine in texts_of(listed.json())
    assert theirs not in texts_of(listed.json())
    assert OTHER not in listed.text
    assert (await own.get(path, params={"tenant": OWN})).json() == listed.json()
    for query in (f"tenant={OTHER}", f"tenant={OWN}&tenant={OTHER}"):
        refused = await own.get(f"{path}?{query}")
        assert refused.status_code == 404, refused.text


def texts_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for each in value.values() for text in texts_of(each)}
    if isinstance(value, list):
        return {text for each in value for text in texts_of(each)}
    return {str(value)}


@pytest.mark.parametrize(("method", "path"), [each for each in PLAIN if each[0] != "GET"])
async def test_nothing_is_done_to_another_tenant(world: World, method: str, path: str) -> None:
    own, short = world.clients[OWN], path.removeprefix(API)
    if is_of_the_platform(path) or short in FOR_OPERATORS_OF_ALL:
        assert (await own.request(method, path, json={})).status_code == 403
        return
    if short in TRIED_BY_THEMSELVES:
        return
    if short not in BODIES:
        pytest.fail(f"{method} {path}: add to BODIES what it takes, or add it to OF_THE_PLATFORM")
    await world.fail_one(OTHER)
    for tenant in (OWN, OTHER):
        await make_effect(world, tenant, f"effect-of-{tenant}")
    seen = (await world.everyone.get(RUNS, params={"tenant": OTHER})).json()

    refused = await own.request(method, path, json=BODIES[short](OTHER))
    allowed = await own.request(method, path, json=BODIES[short](OWN))

    assert refused.status_code == 404, refused.text
    assert allowed.status_code < 300, allowed.text
    assert (await world.everyone.get(RUNS, params={"tenant": OTHER})).json() == seen


async def test_what_names_no_tenant_is_done_to_the_keys_own(world: World) -> None:
    for tenant in (OWN, OTHER):
        await world.fail_one(tenant)

    redriven = await world.clients[OWN].post("/api/v1/dead/redrive", json={"all": True})

    assert redriven.json() == {"count": 1}
    (left,) = (await world.everyone.get("/api/v1/dead")).json()["items"]
    assert left["tenant"] == OTHER


async def test_a_batch_with_another_tenant_in_it_takes_only_the_own(world: World) -> None:
    runs = [{"agent": "hello", "input": {"name": "x"}} | each for each in ({}, {"tenant": OTHER}, {"tenant": OWN})]

    told = (await world.clients[OWN].post(f"{RUNS}:batch", json={"runs": runs})).json()["runs"]

    assert [each["status"] for each in told] == [202, 404, 202]
    assert (await world.everyone.get(RUNS, params={"tenant": OTHER})).json()["items"] == []


async def test_one_idempotency_key_in_two_tenants_makes_two_runs(world: World) -> None:
    body = {"agent": "hello", "input": {"name": "x"}, "idempotency_key": "same"}

    told = [(await world.clients[tenant].post(RUNS, json=body)).json() for tenant in (OWN, OTHER, OWN)]

    assert [each["created"] for each in told] == [True, True, False]
    assert told[0]["id"] == told[2]["id"] != told[1]["id"]


async def test_a_tenants_records_are_not_those_of_the_platform(world: World, app: FastAPI, db: Database) -> None:
    """Records of no tenant, such as those of workers and of keys for all, are for those who see all."""
    made = await keys.create_key(db, "d", KeyRole.VIEWER, tenant="default", expires_at=None, principal="test")
    async with documented_client(app) as client:
        client.headers["authorization"] = f"Bearer {made.text}"
        seen = (await client.get("/api/v1/audit", params={"limit": 200})).json()["items"]

    assert [(record["action"], record["tenant"]) for record in seen] == [("key.created", "default")]
    whole = (await world.everyone.get("/api/v1/audit", params={"limit": 200})).json()["items"]
    assert {"worker.started", "agent.registered"} <= {record["action"] for record in whole if not record["tenant"]}


async def test_what_all_have_spent_together_is_not_told(world: World) -> None:
    await limits.set_limit(world.db, Limit("global", Period.MONTH, Unit.MICROUSD, 1000), principal="test")
    (limit,) = (await world.everyone.get("/api/v1/budgets")).json()["items"]
    run_id = await world.submit(OWN)
    run = {each.run_id: each for each in await world.worker.claim()}[run_id]
    reached = ReachedLimit("global", "global", limit["period"], "microusd", 1000, 770, 0, 300, False, None, 1)
    waits = (Wait("limit", f"global/{limit['period']}/microusd@{epoch_of(world.db)}", "ask"),)
    settlement = ended(run, "suspended", waits=waits)._replace(reason=tell_reached(reached))
    await asyncio.to_thread(settle, world.db, settlement)

    for path in (f"{RUNS}/{run_id}/why", f"{RUNS}/{run_id}/timeline", f"{RUNS}/{run_id}/waterfall", "/api/v1/audit"):
        whole, seen = (await world.everyone.get(path)).text, (await world.clients[OWN].get(path)).text
        assert "$0.001" not in seen
        assert "budget set" not in seen
        if "$0.001" in whole:
            assert "a limit that is shared with others has no room" in seen
    assert "$0.001: $0.00 spent" in (await world.everyone.get(f"{RUNS}/{run_id}/why")).text


async def test_events_of_others_are_not_told_wherever_the_stream_resumes(
    world: World, app: FastAPI, stopping: asyncio.Event
) -> None:
    for tenant in (OTHER, OWN, OTHER, OWN):
        await world.submit(tenant)
    authorization = world.clients[OWN].headers["authorization"]

    async with serving(app) as url:
        for last_event_id in ("0", "1"):
            async with reading(f"{url}/api/v1/events", last_event_id, Authorization=authorization) as events:
                _, last = await world.submit(OTHER), await world.submit(OWN)
                told = await _until(events, last)
                assert {event["tenant"] for event in told} == {OWN}
        run_id = await world.submit(OTHER)
        async with httpx2.AsyncClient(headers={"Authorization": authorization}) as client:
            assert (await client.get(f"{url}/api/v1/events?tenant={OTHER}")).status_code == 404
            headers = {"Last-Event-ID": "0.0"}
            assert (await client.get(f"{url}{RUNS}/{run_id}/events", headers=headers)).status_code == 404
        stopping.set()


async def _until(events: AsyncIterator[Any], run_id: str) -> list[dict[str, Any]]:
    told = []
    async for event in events:
        told.append(event.data)
        if event.data["entity_id"] == run_id:
            break
    return told


async def test_a_large_payload_is_not_to_be_had_by_its_hash(world: World) -> None:
    """Two tenants may hold the same text, kept once; neither learns of the other, and the hash alone opens nothing."""
    large = {"name": f"of-{OTHER}" + "x" * blobs.LARGE}
    theirs = await world.submit(OTHER, input=large)
    (blob,) = world.db.administer(lambda tx: tx.fetch_all("SELECT hash FROM blobs"))
    own = world.clients[OWN]

    guesses = [f"{blobs.PREFIX}{blob['hash']}", blob["hash"]]
    made = [(await own.post(RUNS, json={"agent": "hello", "input": {"name": guess}})).json()["id"] for guess in guesses]
    for run_id, guess in zip(made, guesses, strict=True):
        shown = (await own.get(f"{RUNS}/{run_id}")).json()
        assert shown["input"] == {"name": guess}
        assert f"of-{OTHER}x" not in json.dumps((await own.get(f"{RUNS}/{run_id}/timeline")).json())
    same = (await own.post(RUNS, json={"agent": "hello", "input": large})).json()
    assert same["created"]
    assert same["id"] != theirs
    (kept,) = world.db.administer(lambda tx: tx.fetch_all("SELECT count(*) AS found FROM blobs"))
    assert kept["found"] == 1


async def test_webhooks_and_what_they_tell_belong_to_the_runs_tenant(world: World) -> None:
    run_id = await world.submit(OTHER, webhook_url="https://example.com/hook")
    await world.clients[OTHER].post(f"{RUNS}/{run_id}/cancel")

    delivered = {
        tenant: (await world.clients[tenant].get(RUNS, params={"agent": "pilothouse.webhook"})).json()["items"]
        for tenant in (OWN, OTHER)
    }

    assert (len(delivered[OWN]), len(delivered[OTHER])) == (0, 1)


# --- those who look after all tenants ----------------------------------------------------------


async def test_tenants_are_listed_shown_exported_and_erased_by_admins_of_all(world: World) -> None:
    run_id = await world.submit(OTHER)
    await world.submit(OWN)
    admin = world.everyone

    listed = (await admin.get("/api/v1/tenants")).json()["items"]
    assert [(each["tenant"], each["runs"], each["queued"], each["keys"]) for each in listed] == [
        (OWN, 1, 1, 1),
        (OTHER, 1, 1, 1),
    ]
    shown = (await admin.get(f"/api/v1/tenants/{OTHER}")).json()
    assert (shown["state"], shown["rows"]["runs"], shown["erasure"]) == ("active", 1, None)
    exported = await admin.get(f"/api/v1/tenants/{OTHER}/export")
    assert exported.headers["content-type"] == "application/gzip"
    lines = gzip.decompress(exported.content).decode()
    assert run_id in lines
    assert OWN not in lines

    address = f"/api/v1/tenants/{OTHER}/erase"
    assert (await admin.post(address, json={"confirm": OTHER})).status_code == 409
    assert (await admin.post(address, json={"confirm": OWN})).status_code == 422
    begun = await admin.post(address, json={"confirm": OTHER, "cancel": True, "reason": "it has left"})
    assert (begun.status_code, begun.json()["state"]) == (202, "under_way")
    await erasures.carry_on_all(world.db)
    shown = (await admin.get(f"/api/v1/tenants/{OTHER}")).json()
    assert (shown["state"], shown["rows"], shown["erasure"]["state"]) == ("erased", {}, "done")
    assert (await admin.post(address, json={"confirm": OTHER})).json() == shown["erasure"]
    proved = (await admin.get("/api/v1/audit/verification")).json()
    assert [(each["tenant"], each["by"]) for each in proved["erased"]] == [(OTHER, "key:key-of-")]


async def test_an_unknown_tenant_is_a_problem(world: World) -> None:
    for path in ("", "/export"):
        assert (await world.everyone.get(f"/api/v1/tenants/nobody{path}")).status_code == 404
    erased = await world.everyone.post("/api/v1/tenants/nobody/erase", json={"confirm": "nobody"})
    assert erased.status_code == 404
