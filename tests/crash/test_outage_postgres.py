"""PostgreSQL goes away for a while: workers pause and resume, the API says so, nothing is lost or done twice."""

from __future__ import annotations

import time
from typing import Literal

import httpx2
import pytest

from pilothouse.store.postgres_runner import OUTCOME_SECONDS
from tests.crash.processes import SURE_LEASE, Fleet, answers, eventually
from tests.patience import WAIT_SECONDS
from tests.postgres_server import PostgresServer

RUN = {"agent": "worker_bee", "input": {"steps": 1}}


@pytest.mark.parametrize(
    ("how", "least_seconds"),
    [("fast", 0.0), ("immediate", OUTCOME_SECONDS + 1), ("kill", 0.0)],
    ids=["fast", "immediate-and-long", "kill"],
)
def test_workers_pause_and_resume_when_postgresql_goes_and_comes(
    postgres_fleet: Fleet,
    private_postgres: PostgresServer,
    how: Literal["fast", "immediate", "kill"],
    least_seconds: float,
) -> None:
    fleet = postgres_fleet
    url = fleet.start_api("api", "--scheduler")
    for name in ("one", "two"):
        fleet.start_worker(name, **SURE_LEASE)
    eventually(lambda: answers(f"{url}/ready") == 200, "the API to be ready")
    ids = fleet.submit("worker_bee", 100, steps=6, pause_seconds=0.0)
    eventually(lambda: len(fleet.executions()) > 50, "the runs to be under way")
    began = time.monotonic()

    private_postgres.kill() if how == "kill" else private_postgres.stop(how)
    eventually(lambda: answers(f"{url}/ready") == 503, "the API to say that it is not ready")
    for name in ("one", "two"):
        eventually(lambda name=name: "worker.paused" in fleet.log_of(name), "the workers to pause")  # type: ignore[misc]
    assert_refused_for_now(httpx2.post(f"{url}/api/v1/runs", json=RUN, timeout=WAIT_SECONDS))
    while time.monotonic() - began < least_seconds:  # so long that nobody waits any more for the news of a commit
        assert_refused_for_now(httpx2.get(f"{url}/api/v1/runs", timeout=WAIT_SECONDS))
        assert answers(f"{url}/health") == 200
        time.sleep(0.1)
    assert answers(f"{url}/health") == 200
    private_postgres.start()

    assert fleet.until_ended(ids) == {"succeeded": 100}
    assert fleet.outcomes(ids) == {"succeeded": 100}, "an outage costs no attempt"
    eventually(lambda: answers(f"{url}/ready") == 200, "the API to be ready again")
    taken = httpx2.post(f"{url}/api/v1/runs", json=RUN, timeout=WAIT_SECONDS).json()["id"]
    assert fleet.until_ended([taken]) == {"succeeded": 1}


def assert_refused_for_now(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_an_idle_worker_says_that_it_pauses(postgres_fleet: Fleet, private_postgres: PostgresServer) -> None:
    fleet = postgres_fleet
    fleet.start_worker("worker", **SURE_LEASE)

    private_postgres.stop("fast")

    eventually(lambda: "worker.paused" in fleet.log_of("worker"), "the worker to pause")
    private_postgres.start()
    eventually(lambda: "worker.resumed" in fleet.log_of("worker"), "the worker to resume")
    assert fleet.until_ended(fleet.submit("worker_bee", 2)) == {"succeeded": 2}


def test_a_worker_can_be_stopped_while_the_database_is_away(
    postgres_fleet: Fleet, private_postgres: PostgresServer
) -> None:
    fleet = postgres_fleet
    idle = fleet.start_worker("idle", "--agents", "stubborn")
    busy = fleet.start_worker("busy", PILOTHOUSE_DRAIN_SECONDS="0.2")
    ids = fleet.submit("gated", 3)
    eventually(lambda: len(fleet.executions()) == 6, "the runs to be at the gate")
    private_postgres.stop("immediate")
    eventually(lambda: "worker.paused" in fleet.log_of("busy"), "the busy worker to pause")

    idle.terminate()
    busy.terminate()

    assert fleet.wait("idle") == 0
    assert fleet.wait("busy") == 0
    private_postgres.start()
    fleet.gate.touch()
    fleet.start("scheduler", "scheduler")
    fleet.start_worker("heir", **SURE_LEASE)
    assert fleet.until_ended(ids) == {"succeeded": 3}
    assert fleet.outcomes(ids) == {"lost": 3, "succeeded": 3}
