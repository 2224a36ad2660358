"""The form that submits: made from the input schema, errors beside their fields, what was typed stays."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.control import keys
from pilothouse.domain.keys import KeyRole
from pilothouse.store.database import Database
from pilothouse.web.pages.schema_forms import defaults, fields_of, flatten, say, shape_of
from tests.web.browsing import send, sign_in, token_of
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker, agent_card

MARKUP = "<script>alert('x')</script>"
ORDER: dict[str, Any] = {
    "$defs": {
        "Address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string", "default": "Lyon"}},
            "required": ["street"],
        },
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
    },
    "type": "object",
    "properties": {
        "customer": {"type": "string", "description": "Who <b>buys</b>"},
        "count": {"type": "integer", "minimum": 1, "default": 1},
        "price": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "express": {"type": "boolean", "default": True},
        "kind": {"enum": ["lamp", "bulb", 3]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"$ref": "#/$defs/Address"},
        "others": {"type": "array", "items": {"$ref": "#/$defs/Address"}},
        "gift": {"$ref": "#/$defs/Address"},
        "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
        "node": {"$ref": "#/$defs/Node"},
    },
    "required": ["customer", "kind", "address", "extra"],
    "additionalProperties": False,
}
TYPED = {
    "input.customer": "Zoë <b>",
    "input.count": "2",
    "input.kind": '"bulb"',
    "input.extra": '{"a": 1}',
    "input.address.street": "Rue 1",
    "input.address.city": "Lyon",
    "input.tags.#": "3",
    "input.tags.1": "red",
    "input.others.#": "1",
    "input.others.0.street": "Rue 2",
}
SAID = {
    "customer": "Zoë <b>",
    "count": 2,
    "express": False,
    "kind": "bulb",
    "tags": ["red"],
    "address": {"street": "Rue 1", "city": "Lyon"},
    "others": [{"street": "Rue 2"}],
    "extra": {"a": 1},
}


@pytest.fixture
async def orders(db: Database) -> FakeWorker:
    worker = FakeWorker(db)
    await worker.start(agent_card("order", input_schema=json.dumps(ORDER)), agent_card())
    return worker


async def submitted(api: httpx2.AsyncClient, fields: dict[str, str]) -> httpx2.Response:
    return await send(api, f"/submit?agent={fields['agent']}", "/submit", fields)


async def run_of(api: httpx2.AsyncClient, answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 303, answer.text
    run: dict[str, Any] = (await api.get(f"/api/v1{answer.headers['location']}")).json()
    return run


async def test_a_form_of_every_kind_of_field_becomes_an_input(api: httpx2.AsyncClient, orders: FakeWorker) -> None:
    page = (await api.get("/submit?agent=order")).text
    assert "Who &lt;b&gt;buys&lt;/b&gt;" in page
    assert re.search(r'name="input.express"[^>]*checked', page)
    assert re.search(r'name="input.address.city"[^>]*value="Lyon"', page)
    assert "<textarea" in page

    run = await run_of(api, await submitted(api, {"agent": "order", **TYPED, "lane": "low", "priority": "7"}))

    assert (run["input"], run["lane"], run["priority"]) == (SAID, "low", 7)
    again = (await api.get(f"/submit?again={run['id']}")).text
    assert 'value="Zoë &lt;b&gt;"' in again
    assert re.search(r'name="input.others.0.street"[^>]*value="Rue 2"', again)


async def test_errors_stand_beside_their_fields_and_what_was_typed_stays(
    api: httpx2.AsyncClient, orders: FakeWorker
) -> None:
    fields = {**TYPED, "input.count": "two", "input.extra": "{oops", "input.kind": "", "input.customer": MARKUP}

    page = (await submitted(api, {"agent": "order", **fields, "idempotency_key": "k-1"})).text

    wrong = dict(re.findall(r'id="(input[\w.]*)-wrong">([^<]+)<', page))
    assert wrong.keys() == {"input.count", "input.extra", "input.kind"}
    assert "whole number" in wrong["input.count"]
    assert 'value="two"' in page
    assert "{oops</textarea>" in page
    assert 'value="k-1"' in page
    assert MARKUP not in page
    assert (await api.get("/api/v1/runs")).json()["items"] == []


async def test_what_only_the_schema_refuses_is_shown_beside_its_field_too(
    api: httpx2.AsyncClient, orders: FakeWorker
) -> None:
    answer = await submitted(api, {"agent": "order", **TYPED, "input.count": "0", "priority": "99"})
    assert answer.status_code == 422
    assert "less than or equal to 9" in answer.text
    answer = await submitted(api, {"agent": "order", **TYPED, "input.count": "0"})
    assert re.search(r'id="input.count-wrong">[^<]*minimum', answer.text)
    assert 'value="0"' in answer.text


async def test_a_list_gets_lines_and_the_form_turns_into_json_and_back(
    api: httpx2.AsyncClient, orders: FakeWorker
) -> None:
    more = (await submitted(api, {"agent": "order", **TYPED, "do": "add:input.tags"})).text
    assert re.search(r'name="input.tags.3"', more)
    assert re.search(r'name="input.tags.1"[^>]*value="red"', more)

    turned = (await submitted(api, {"agent": "order", **TYPED, "do": "json"})).text
    assert "Type it as fields" in turned
    typed = {"agent": "order", "as": "json", "json": json.dumps(SAID | {"count": 5})}
    back = (await submitted(api, {**typed, "do": "fields"})).text
    assert re.search(r'name="input.count"[^>]*value="5"', back)
    assert (await run_of(api, await submitted(api, typed)))["input"] == SAID | {"count": 5}
    broken = await submitted(api, {**typed, "json": "{oops"})
    assert (broken.status_code, "{oops</textarea>" in broken.text) == (422, True)


async def test_the_same_key_leads_to_the_same_run(api: httpx2.AsyncClient, orders: FakeWorker) -> None:
    fields = {"agent": "hello", "input.name": "Ada", "idempotency_key": "once", "at": "2999-01-01T09:00"}
    first, second = await submitted(api, fields), await submitted(api, fields)

    assert first.headers["location"] == second.headers["location"]
    assert "its idempotency key is known" in (await api.get(second.headers["location"])).text
    assert (await run_of(api, first))["available_at"].startswith("2999-01-01T09:00")


async def test_who_may_not_is_told_so(app: FastAPI, db: Database, orders: FakeWorker) -> None:
    made = {
        role: await keys.create_key(db, role, role, tenant=tenant, expires_at=None, principal="test")
        for role, tenant in ((KeyRole.VIEWER, None), (KeyRole.OPERATOR, "acme"))
    }
    fields = {"agent": "hello", "input.name": "Ada"}
    async with documented_client(app) as viewer:
        await sign_in(viewer, made[KeyRole.VIEWER].text)
        page = await viewer.get("/submit?agent=hello")
        assert 'class="main"' not in page.text
        assert (await viewer.post("/submit", data={"form": token_of(page), **fields})).status_code == 403
    async with documented_client(app) as tenant:
        await sign_in(tenant, made[KeyRole.OPERATOR].text)
        assert (await tenant.post("/submit", data={"form": "0" * 64, **fields})).status_code == 403
        assert (await submitted(tenant, {**fields, "tenant": "globex"})).status_code == 404
        done = await submitted(tenant, fields)
        run = await db.read(lambda tx: tx.fetch_one("run_by_id", id=done.headers["location"].rpartition("/")[2]))
        assert run is not None
        assert run["tenant"] == "acme"


async def test_an_agent_that_does_not_exist_is_a_page(api: httpx2.AsyncClient, orders: FakeWorker) -> None:
    assert (await api.get("/submit?agent=nobody")).status_code == 404
    assert "Choose an agent" in (await api.get("/submit")).text


TEXTS = st.text(min_size=1, max_size=20)
PLACES = st.fixed_dictionaries({"street": TEXTS}, optional={"city": TEXTS})


@given(
    st.fixed_dictionaries(
        {
            "customer": TEXTS,
            "kind": st.sampled_from(["lamp", "bulb", 3]),
            "address": PLACES,
            "express": st.booleans(),
            "extra": st.dictionaries(TEXTS, st.integers(-5, 5)),
        },
        optional={
            "count": st.integers(-(2**53), 2**53),
            "price": st.floats(allow_nan=False, allow_infinity=False),
            "tags": st.lists(TEXTS, min_size=1, max_size=4),
            "others": st.lists(PLACES, min_size=1, max_size=3),
            "gift": PLACES,
        },
    )
)
def test_any_input_survives_the_form(value: dict[str, Any]) -> None:
    shape = shape_of(ORDER, ORDER)
    errors: dict[str, str] = {}

    assert say(shape, flatten(shape, value), errors) == value
    assert errors == {}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "string"},
        {"type": "object"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": ["integer", "null"]},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"enum": []}, "c": 4}},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    ],
)
def test_any_schema_has_a_form(schema: Any) -> None:
    root = schema if isinstance(schema, dict) else {}
    shape = shape_of(schema, root)

    assert fields_of(shape, defaults(shape), {}) is not None
    say(shape, {"input": "[1]"}, {})
