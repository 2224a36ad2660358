"""Runs over HTTP, once they are there: look at them, cancel, redrive, dismiss and signal them."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.store.database import Database
from tests.web.platform import FakeWorker, agent_card

RUNS = "/api/v1/runs"
NO_RUN = "0192f000-0000-7000-8000-000000000000"


async def submit(api: httpx2.AsyncClient, name: str = "Ada", **options: object) -> str:
    response = await api.post(RUNS, json={"agent": "hello", "input": {"name": name}, **options})
    return str(response.json()["id"])


async def test_pages_go_through_all_runs_newest_first(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    ids = [await submit(api) for _ in range(5)]

    first = (await api.get(RUNS, params={"limit": 2})).json()
    second = (await api.get(RUNS, params={"limit": 2, "after": first["next"]})).json()
    third = (await api.get(RUNS, params={"limit": 2, "after": second["next"]})).json()

    listed = [run["id"] for part in (first, second, third) for run in part["items"]]
    assert listed == ids[::-1]
    assert third["next"] is None


async def test_a_full_last_page_has_no_next(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await submit(api)
    await submit(api)

    listed = (await api.get(RUNS, params={"limit": 2})).json()

    assert (len(listed["items"]), listed["next"]) == (2, None)


async def test_every_filter_narrows_the_list(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    wanted = await submit(api, tenant="acme", lane="low")
    other = await submit(api)
    created = (await api.get(f"{RUNS}/{other}")).json()["created_at"]

    for filters in ({"tenant": "acme"}, {"lane": "low"}, {"created_before": created}):
        listed = (await api.get(RUNS, params=filters)).json()["items"]
        assert [run["id"] for run in listed] == [wanted], filters
    for filters in (
        {"state": "running"},
        {"version": "nothing"},
        {"text": "nobody"},
        {"agent": "nobody"},
        {"parent": wanted},
        {"created_after": "2999-01-01T00:00Z"},
    ):
        assert (await api.get(RUNS, params=filters)).json()["items"] == [], filters
    assert len((await api.get(RUNS, params={"state": "queued", "agent": "hello"})).json()["items"]) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "201"), ("limit", "many"), ("state", "done"), ("created_after", "yesterday")],
)
async def test_a_filter_that_does_not_fit_is_named(api: httpx2.AsyncClient, name: str, value: str) -> None:
    response = await api.get(RUNS, params={name: value})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [name]


async def test_a_run_shows_its_output_once_it_has_succeeded(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await worker.settle(await worker.claim_one(), output='{"text":"hello Ada"}')

    run = (await api.get(f"{RUNS}/{run_id}")).json()

    assert (run["state"], run["output"], run["attempt"]) == ("succeeded", {"text": "hello Ada"}, 1)
    assert run["finished_at"] > run["started_at"] >= run["created_at"]


async def test_the_waterfall_accounts_for_the_whole_run(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    (claimed,) = await worker.claim()
    await worker.fail(claimed)

    told = (await api.get(f"{RUNS}/{run_id}/waterfall")).json()

    assert [span["state"] for span in told["spans"] if span["kind"] == "attempt"] == ["failed"]
    assert told["total_us"] == sum(told["where_time_went"].values())
    assert (await api.get(f"{RUNS}/{NO_RUN}/waterfall")).status_code == 404


async def test_the_timeline_tells_everything(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    claimed = await worker.claim_one()
    await worker.log(claimed, "working")
    await api.post(f"{RUNS}/{run_id}/signals/go", json={"by": "Bob"})
    await worker.fail(claimed)

    told = (await api.get(f"{RUNS}/{run_id}/timeline")).json()

    assert told["run"]["state"] == "failed"
    assert [(each["id"], each["state"]) for each in told["attempts"]] == [(f"{run_id}.1", "failed")]
    assert [(each["message"], each["fields"]) for each in told["logs"]] == [("working", {"n": 1})]
    assert [(each["name"], each["payload"]) for each in told["signals"]] == [("go", {"by": "Bob"})]
    actions = ["run.submitted", "run.claimed", "run.signalled", "run.failed"]
    assert [each["action"] for each in told["audit"]] == actions


async def test_why_gives_reasons_and_the_next_step(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await worker.fail(await worker.claim_one())

    why = (await api.get(f"{RUNS}/{run_id}/why")).json()

    assert (why["state"], why["reasons"]) == ("failed", ["ValueError: it broke"])
    assert "redrive" in why["next"]


async def test_a_queued_run_is_cancelled_at_once(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)

    response = await api.post(f"{RUNS}/{run_id}/cancel", json={"reason": "changed my mind"})

    assert response.status_code == 200
    assert (response.json()["state"], response.json()["error"]["message"]) == ("cancelled", "changed my mind")


async def test_a_running_run_shows_cancelling_until_its_worker_has_proved_it(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    run_id = await submit(api)
    claimed = await worker.claim_one()

    cancelling = await api.post(f"{RUNS}/{run_id}/cancel")
    await worker.settle(claimed, "cancelled")

    assert cancelling.json()["state"] == "cancelling"
    assert (await api.get(f"{RUNS}/{run_id}")).json()["state"] == "cancelled"


async def test_a_failed_run_is_redriven(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await worker.fail(await worker.claim_one())

    response = await api.post(f"{RUNS}/{run_id}/redrive", json={"from": "start", "reason": "fixed"})

    assert (response.status_code, response.json()["state"], response.json()["failures"]) == (200, "queued", 0)
    assert (await api.get("/api/v1/dead")).json()["items"] == []


async def test_a_failed_run_is_dismissed(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await worker.fail(await worker.claim_one())

    response = await api.post(f"{RUNS}/{run_id}/dismiss", json={"reason": "known"})

    assert response.json()["dismissed_at"] is not None
    assert (await api.get("/api/v1/dead")).json()["items"] == []


@pytest.mark.parametrize("verb", ["redrive", "dismiss"])
async def test_only_a_failed_run_can_be_dealt_with(api: httpx2.AsyncClient, worker: FakeWorker, verb: str) -> None:
    run_id = await submit(api)

    response = await api.post(f"{RUNS}/{run_id}/{verb}")

    assert response.status_code == 409
    assert run_id in response.json()["detail"]


async def test_an_ended_run_cannot_be_cancelled_or_signalled(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await worker.settle(await worker.claim_one())

    assert (await api.post(f"{RUNS}/{run_id}/cancel")).status_code == 409
    assert (await api.post(f"{RUNS}/{run_id}/signals/go")).status_code == 409


async def test_the_first_signal_of_a_name_wins(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)

    first = await api.post(f"{RUNS}/{run_id}/signals/paid", json={"amount": 5})
    second = await api.post(f"{RUNS}/{run_id}/signals/paid", json={"amount": 6})
    empty = await api.post(f"{RUNS}/{run_id}/signals/empty")

    assert (first.json(), second.json(), empty.json()) == ({"first": True}, {"first": False}, {"first": True})
    signals = (await api.get(f"{RUNS}/{run_id}/timeline")).json()["signals"]
    assert {each["name"]: each["payload"] for each in signals} == {"paid": {"amount": 5}, "empty": None}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/timeline"),
        ("GET", "/why"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/redrive"),
        ("POST", "/dismiss"),
        ("POST", "/signals/go"),
    ],
)
async def test_an_unknown_run_is_not_found(api: httpx2.AsyncClient, method: str, path: str) -> None:
    response = await api.request(method, f"{RUNS}/{NO_RUN}{path}")

    assert response.status_code == 404
    assert response.json()["code"] == "not_found"
    assert NO_RUN in response.json()["detail"]


async def test_the_dead_letters_of_a_filter_are_redriven_together(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    ids = [await submit(api) for _ in range(3)]
    for run, error_type in zip(await worker.claim(), ("Boom", "Boom", "Other"), strict=True):
        await worker.fail(run, error_type)

    letters = (await api.get("/api/v1/dead", params={"error_type": "Boom", "limit": 1})).json()
    redriven = (await api.post("/api/v1/dead/redrive", json={"error_type": "Boom", "from": "failure"})).json()
    dismissed = (await api.post("/api/v1/dead/dismiss", json={"all": True, "reason": "old"})).json()

    assert (letters["items"][0]["error"]["type"], letters["next"]) == ("Boom", letters["items"][0]["id"])
    assert (redriven, dismissed) == ({"count": 2}, {"count": 1})
    states = [(await api.get(f"{RUNS}/{run_id}")).json()["state"] for run_id in ids]
    assert sorted(states) == ["failed", "queued", "queued"]


async def test_runs_of_a_filter_are_cancelled_and_redriven_together(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    first = await submit(api, "Ada")
    await worker.fail(await worker.claim_one())
    second, third = await submit(api, "Bo"), await submit(api, "Cy")

    planned = (await api.post(f"{RUNS}:cancel", json={"text": "Bo", "dry_run": True})).json()
    assert [line["id"] for line in planned["runs"]] == [second]
    assert (planned["dry_run"], planned["runs"][0]["done"], planned["has_more"]) == (True, False, False)
    done = (await api.post(f"{RUNS}:cancel", json={"ids": [second, first]})).json()
    assert [(line["id"], line["done"], line["told"]) for line in done["runs"]] == [(second, True, "cancelled")]
    redriven = (await api.post(f"{RUNS}:redrive", json={"error_type": "ValueError", "from": "start"})).json()
    assert [(line["id"], line["told"]) for line in redriven["runs"]] == [(first, "queued")]
    states = [(await api.get(f"{RUNS}/{run_id}")).json()["state"] for run_id in (first, second, third)]
    assert states == ["queued", "cancelled", "queued"]
    everything = await api.post(f"{RUNS}:cancel", json={"reason": "all of them?"})
    assert (everything.status_code, '"all": true' in everything.json()["detail"]) == (422, True)


@pytest.mark.parametrize("verb", ["redrive", "dismiss"])
async def test_all_dead_letters_are_meant_only_when_that_is_said(api: httpx2.AsyncClient, verb: str) -> None:
    response = await api.post(f"/api/v1/dead/{verb}")

    assert response.status_code == 422
    assert '"all": true' in response.json()["detail"]


async def test_agents_are_listed_with_their_schemas(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    (listed,) = (await api.get("/api/v1/agents")).json()["items"]
    shown = (await api.get("/api/v1/agents/hello")).json()
    missing = await api.get("/api/v1/agents/helo")

    assert listed == shown
    assert (shown["timeout_seconds"], shown["input_schema"]["required"]) == (300.0, ["name"])
    assert (missing.status_code, "did you mean 'hello'" in missing.json()["detail"]) == (404, True)


async def test_a_worker_is_listed_and_drained(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    await submit(api)
    await worker.claim_one()

    (listed,) = (await api.get("/api/v1/workers")).json()["items"]
    drained = await api.post(f"/api/v1/workers/{worker.id}/drain")
    again = await api.post(f"/api/v1/workers/{worker.id}/drain")
    missing = await api.post("/api/v1/workers/nobody/drain")

    assert (listed["id"], listed["is_live"], listed["running"], listed["agents"]) == (worker.id, True, 1, ["hello"])
    assert [each.status_code for each in (drained, again, missing)] == [200, 409, 404]
    assert drained.json()["state"] == "draining"


async def test_the_audit_is_read_backwards_page_by_page(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    run_id = await submit(api)
    await api.post(f"{RUNS}/{run_id}/cancel")

    first = (await api.get("/api/v1/audit", params={"limit": 1})).json()
    second = (await api.get("/api/v1/audit", params={"limit": 1, "before": first["next"]})).json()
    chosen = (await api.get("/api/v1/audit", params={"action": "run.cancelled", "tenant": "default"})).json()["items"]
    shown = (await api.get(f"/api/v1/audit/{first['next']}")).json()

    assert [page["items"][0]["action"] for page in (first, second)] == ["run.cancelled", "run.submitted"]
    assert chosen == first["items"] == [shown]
    assert (await api.get("/api/v1/audit/999999")).status_code == 404
    assert (await api.get(f"/api/v1/audit/{2**70}")).status_code == 422


async def test_the_overview_tells_what_is_going_on(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    failed, running = await submit(api), await submit(api, lane="low")
    claimed = {run.run_id: run for run in await worker.claim()}
    await worker.fail(claimed[failed])

    told = (await api.get("/api/v1/overview")).json()

    assert [(queue["lane"], queue["runs"].get("running", 0)) for queue in told["queues"]] == [("low", 1), ("normal", 0)]
    assert [run["id"] for run in told["runs"]] == [running, failed]
    assert told["dead"] == {"count": 1, "has_more": False}
    assert [each["is_live"] for each in told["workers"]] == [True]


async def test_a_second_agent_has_a_queue_of_its_own(
    api: httpx2.AsyncClient, worker: FakeWorker, db: Database, app: FastAPI
) -> None:
    await FakeWorker(db).start(agent_card("bye", input_schema="true", description="Leaves."))

    response = await api.post(RUNS, json={"agent": "bye", "input": None})

    assert response.status_code == 202
    assert [each["name"] for each in (await api.get("/api/v1/agents")).json()["items"]] == ["bye", "hello"]


async def test_a_lineage_is_cancelled_and_a_dry_run_cancels_nothing(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    run = (await api.post("/api/v1/runs", json={"agent": "hello", "input": {"name": "Ada"}})).json()["id"]
    url = f"/api/v1/runs/{run}/cancel"
    assert worker.id

    for body in ({"dry_run": True}, {"lineage": True, "dry_run": True}):
        planned = (await api.post(url, json=body)).json()
        assert (planned["root_id"], planned["dry_run"]) == (run, True)
        assert [(each["id"], each["state"]) for each in planned["runs"]] == [(run, "queued")]

    done = (await api.post(url, json={"lineage": True, "reason": "loop"})).json()
    assert [(each["id"], each["state"]) for each in done["runs"]] == [(run, "cancelled")]
    assert (done["dry_run"], done["reservations"]) == (False, [])
    assert (await api.post(url, json={"lineage": True})).status_code == 409


async def test_the_profile_of_a_period_tells_the_groups_that_are_asked_for(
    api: httpx2.AsyncClient, worker: FakeWorker
) -> None:
    await submit(api)
    (claimed,) = await worker.claim()
    await worker.fail(claimed)

    every = (await api.get("/api/v1/profile")).json()
    some = (await api.get("/api/v1/profile", params={"by": "agent", "agent": "hello"})).json()

    assert (every["runs"], every["by_agent"][0]["failed"], every["by_tool"]) == (1, 1, [])
    assert [name for name in some if name.startswith("by_")] == ["by_agent"]
    assert (await api.get("/api/v1/profile", params={"since": "2030-01-01T00:00Z"})).status_code == 422


async def test_runbooks_are_there_to_be_read(api: httpx2.AsyncClient, worker: FakeWorker) -> None:
    listed = (await api.get("/api/v1/runbooks")).json()["items"]
    shown = (await api.get("/api/v1/runbooks/stuck-queue")).json()

    assert "stuck-queue" in [line["name"] for line in listed]
    assert shown["steps"][0]["commands"][0] == {"command": "pilothouse top --once", "places": []}
    assert (await api.get("/api/v1/runbooks/nope")).status_code == 404
