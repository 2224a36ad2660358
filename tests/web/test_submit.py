"""Submitting runs over HTTP: one by one, many at once, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from pilothouse.config import load_settings
from pilothouse.control.runs import Submitter
from pilothouse.domain.queues import QueueLimits
from pilothouse.store.database import Database
from pilothouse.web.server import create_server
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker

RUNS = "/api/v1/runs"
BATCH = "/api/v1/runs:batch"


def fields_of(response: httpx2.Response) -> set[str]:
    return {error["field"] for error in response.json()["errors"]}


async def test_a_submitted_run_is_answered_with_its_address(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})

    told = response.json()
    assert response.status_code == 202
    assert told == {"id": told["id"], "state": "queued", "url": f"/api/v1/runs/{told['id']}", "created": True}
    assert response.headers["location"] == told["url"]
    run = (await api.get(told["url"])).json()
    assert (run["agent"], run["input"], run["lane"], run["priority"]) == ("hello", {"name": "Ada"}, "normal", 5)


async def test_every_option_of_a_submit_reaches_the_run(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    options = {
        "lane": "low",
        "priority": 9,
        "at": "2999-01-01T02:00:00+02:00",
        "tenant": "acme",
        "idempotency_key": "k",
    }

    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}, **options})

    run = (await api.get(response.json()["url"])).json()
    assert {name: run[name] for name in ("lane", "priority", "tenant", "idempotency_key")} == {
        "lane": "low",
        "priority": 9,
        "tenant": "acme",
        "idempotency_key": "k",
    }
    assert run["available_at"] == "2999-01-01T00:00:00.000000Z"


async def test_the_submit_is_audited_as_done_by_the_api(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = (await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})).json()["id"]

    (record,) = (await api.get("/api/v1/audit", params={"entity_id": run_id})).json()["items"]

    assert (record["action"], record["principal"]) == ("run.submitted", "api:local")


@pytest.mark.parametrize("place", ["body", "header", "both"])
async def test_the_same_idempotency_key_yields_one_run(api: httpx2.AsyncClient, worker: FakeWorker, place: str) -> None:
    body = {"agent": "hello", "input": {"name": "Ada"}}
    if place != "header":
        body["idempotency_key"] = "order-1"
    headers = {} if place == "body" else {"Idempotency-Key": "order-1"}

    first = await api.post(RUNS, json=body, headers=headers)
    second = await api.post(RUNS, json=body, headers=headers)

    assert first.json()["created"] is True
    assert second.json() == {**first.json(), "created": False}


async def test_a_known_key_with_another_input_is_a_conflict(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    headers = {"Idempotency-Key": "order-1"}
    await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}}, headers=headers)

    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Bob"}}, headers=headers)

    assert response.status_code == 409
    assert "order-1" in response.json()["detail"]


async def test_header_and_body_may_not_name_two_keys(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    body = {"agent": "hello", "input": {"name": "Ada"}, "idempotency_key": "a"}

    response = await api.post(RUNS, json=body, headers={"Idempotency-Key": "b"})

    assert response.status_code == 422
    assert fields_of(response) == {"idempotency_key"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"agent": None}, "agent"),
        ({"agent": ""}, "agent"),
        ({"agent": "x\0y"}, "agent"),
        ({"input": {"name": 7}}, "input.name"),
        ({"input": {}}, "input"),
        ({"input": {"name": "Ada", "times": 2**70}}, "input"),
        ({"lane": "fast"}, "lane"),
        ({"priority": 10}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"at": "tomorrow"}, "at"),
        ({"at": "2999-01-01T00:00:00"}, "at"),
        ({"at": 4102444800}, "at"),
        ({"at": "9999-12-31T23:59:59Z"}, "at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"tenant": "t" * 256}, "tenant"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"colour": "red"}, "colour"),
        ({"input": "nested " * 2, "agent": 5}, "agent"),
    ],
)
async def test_what_does_not_fit_is_refused_by_its_field(
    api: httpx2.AsyncClient, worker: FakeWorker, change: dict[str, Any], field: str
) -> None:
    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}} | change)

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_input"
    assert field in fields_of(response)


async def test_missing_keys_are_named(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.post(RUNS)

    assert response.status_code == 422
    assert fields_of(response) == {"agent", "input"}


async def test_a_body_that_is_no_object_is_refused(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.post(RUNS, json=["hello"])

    assert response.status_code == 422


async def test_an_unknown_agent_is_answered_with_the_one_that_comes_close(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    response = await api.post(RUNS, json={"agent": "helo", "input": {"name": "Ada"}})

    assert response.status_code == 404
    assert "did you mean 'hello'" in response.json()["detail"]


async def test_broken_json_is_answered_with_its_place(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.post(RUNS, content=b'{"agent": "hello",\n "input": nope}')

    assert response.status_code == 400
    assert response.json()["code"] == "broken_json"
    assert "at line 2 column 12" in response.json()["detail"]


async def test_text_that_is_not_unicode_is_broken_json(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    response = await api.post(RUNS, content=b'{"agent": "\xff", "input": "\\ud800"}')

    assert response.status_code == 400


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_limit_is_refused(
    api: httpx2.AsyncClient, worker: FakeWorker, is_announced: bool
) -> None:
    body = b'{"agent": "hello", "input": {"name": "' + b"x" * 100_000 + b'"}}'

    async def chunks() -> Any:
        yield body[:50_000]
        yield body[50_000:]

    response = await api.post(RUNS, content=body if is_announced else chunks())

    assert response.status_code == 413
    assert response.json()["code"] == "too_large"
    assert "100000 bytes" in response.json()["detail"]


async def test_concurrent_submits_each_get_their_own_answer(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    bodies: list[dict[str, Any]] = [{"agent": "hello", "input": {"name": f"n{n}"}} for n in range(30)]
    bodies[7]["agent"] = "nobody"
    bodies[8]["input"] = {}

    responses = await asyncio.gather(*(api.post(RUNS, json=body) for body in bodies))

    assert [responses[n].status_code for n in (6, 7, 8, 9)] == [202, 404, 422, 202]
    accepted = [response.json()["id"] for response in responses if response.status_code == 202]
    inputs = [(await api.get(f"{RUNS}/{run_id}")).json()["input"]["name"] for run_id in accepted]
    assert inputs == [f"n{n}" for n in range(30) if n not in (7, 8)]


async def test_a_batch_answers_each_run_in_its_place(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    batch: list[Any] = [
        {"agent": "hello", "input": {"name": "Ada"}},
        {"agent": "nobody", "input": {}},
        {"agent": "hello", "input": {"name": 5}},
        {"agent": "hello", "colour": "red"},
        "what?",
        {"agent": "hello", "input": {"name": "Bob"}},
    ]

    response = await api.post(BATCH, json={"runs": batch})

    answers = response.json()["runs"]
    assert response.status_code == 200
    assert [each["status"] for each in answers] == [202, 404, 422, 422, 422, 202]
    assert [each.get("created") for each in answers] == [True, None, None, None, None, True]
    assert answers[2]["instance"] == "/api/v1/runs:batch#/runs/2"
    assert {error["field"] for error in answers[3]["errors"]} == {"input", "colour"}
    assert (await api.get(answers[5]["url"])).json()["input"] == {"name": "Bob"}


async def test_a_batch_that_is_sent_again_with_its_key_makes_no_run_twice(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    batch = {"runs": [{"agent": "hello", "input": {"name": name}} for name in ("Ada", "Bob")]}
    batch["runs"][1]["idempotency_key"] = "bob"

    first = (await api.post(BATCH, json=batch, headers={"Idempotency-Key": "b1"})).json()["runs"]
    second = (await api.post(BATCH, json=batch, headers={"Idempotency-Key": "b1"})).json()["runs"]

    assert [each["id"] for each in second] == [each["id"] for each in first]
    assert [each["created"] for each in second] == [False, False]
    keys = [(await api.get(each["url"])).json()["idempotency_key"] for each in first]
    assert keys == ["b1.0", "bob"]


async def test_a_batch_has_at_most_500_runs(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run = {"agent": "hello", "input": {"name": "Ada"}}

    accepted = await api.post(BATCH, json={"runs": [run] * 500})
    refused = await api.post(BATCH, json={"runs": [run] * 501})
    empty = await api.post(BATCH, json={"runs": []})

    assert len({each["id"] for each in accepted.json()["runs"]}) == 500
    assert (refused.status_code, fields_of(refused)) == (422, {"runs"})
    assert empty.json() == {"runs": []}


async def test_a_full_queue_is_refused_with_429_and_when_to_come_back(db: Database, worker: FakeWorker) -> None:
    app = create_server(db, Submitter(db, QueueLimits(per_tenant=1)), load_settings(), asyncio.Event())
    async with documented_client(app) as api:
        body = {"agent": "hello", "input": {"name": "Ada"}}
        assert (await api.post(RUNS, json=body)).status_code == 202

        refused = await api.post(RUNS, json=body)
        batch = (await api.post(f"{RUNS}:batch", json={"runs": [body, body | {"tenant": "other"}]})).json()["runs"]

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "queue_full", "5")
    assert "the queue of tenant 'default' is full" in refused.json()["detail"]
    assert [outcome.get("status") for outcome in batch] == [429, 202]
