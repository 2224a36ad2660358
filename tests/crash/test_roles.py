"""The roles meet only in the database: killing one leaves the others serving."""

from __future__ import annotations

import httpx2

from tests.crash.processes import SURE_LEASE, Fleet, answers, eventually
from tests.patience import WAIT_SECONDS


def test_without_a_scheduler_runs_are_taken_and_done(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    url = fleet.start_api()
    fleet.start_worker("worker")

    fleet.kill("scheduler")

    assert fleet.until_ended([submit(url)]) == {"succeeded": 1}
    assert answers(f"{url}/ready") == 200


def test_without_an_api_what_was_taken_is_done(fleet: Fleet) -> None:
    url = fleet.start_api()
    fleet.start_worker("worker")
    taken = [submit(url) for _ in range(5)]

    fleet.kill("api")

    assert fleet.until_ended(taken) == {"succeeded": 5}
    assert fleet.until_ended(fleet.submit("worker_bee", 3)) == {"succeeded": 3}
    assert submit(fleet.start_api("next"))


def test_without_a_worker_runs_are_taken_and_wait(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    url = fleet.start_api()
    fleet.start_worker("worker")
    eventually(lambda: answers(f"{url}/ready") == 200, "the API to be ready")

    fleet.kill("worker")

    taken = submit(url)
    eventually(lambda: httpx2.get(f"{url}/ready").json()["status"] == "degraded", "the API to miss the worker")
    assert answers(f"{url}/ready") == 200
    assert fleet.states([taken]) == {"queued": 1}
    fleet.start_worker("next", **SURE_LEASE)
    assert fleet.until_ended([taken]) == {"succeeded": 1}


def test_a_second_scheduler_takes_over(fleet: Fleet) -> None:
    fleet.start("leader", "scheduler")
    eventually(lambda: leader_of(fleet), "a leader")
    led = leader_of(fleet)
    fleet.start("deputy", "scheduler")
    fleet.start_worker("victim")
    ids = fleet.submit("gated", 2)
    eventually(lambda: len(fleet.executions()) == 4, "the runs to be at the gate")

    fleet.kill("leader")
    fleet.kill("victim")
    fleet.gate.touch()
    fleet.start_worker("heir", **SURE_LEASE)

    assert fleet.until_ended(ids) == {"succeeded": 2}
    assert leader_of(fleet) != led


def submit(url: str) -> str:
    answer = httpx2.post(
        f"{url}/api/v1/runs", json={"agent": "worker_bee", "input": {"steps": 2}}, timeout=WAIT_SECONDS
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def leader_of(fleet: Fleet) -> str | None:
    """Who reaps."""
    leases = fleet.db.read_blocking(lambda tx: tx.fetch_all("list_leases"))
    live = [lease for lease in leases if lease["lease_until"] > lease["now"]]
    return next((lease["holder"] for lease in live if lease["name"] == "janitor"), None)
