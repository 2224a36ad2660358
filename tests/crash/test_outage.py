"""The database goes away for a while: workers pause and resume, the API says so, nothing is lost or done twice."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx2
import pytest

from tests.crash.processes import Fleet, answers, eventually, free_port
from tests.postgres_server import PostgresServer


@pytest.fixture
def postgres_fleet(tmp_path: Path, private_postgres: PostgresServer) -> Iterator[Fleet]:
    made = Fleet(tmp_path, private_postgres.url())
    try:
        yield made
        assert made.broken_invariants() == []
    finally:
        made.close()


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_workers_pause_and_resume_when_postgresql_goes_and_comes(
    postgres_fleet: Fleet, private_postgres: PostgresServer, how: Literal["fast", "immediate", "kill"]
) -> None:
    fleet, port = postgres_fleet, free_port()
    fleet.start("api", "api", "--scheduler", "--port", str(port))
    fleet.start_worker("worker", PILOTHOUSE_LEASE_SECONDS="8")
    api = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{api}/ready") == 200, "the API to be ready")
    ids = fleet.submit("worker_bee", 30, steps=5, pause_seconds=0.05)
    eventually(lambda: len(fleet.executions()) > 15, "the runs to be under way")

    private_postgres.kill() if how == "kill" else private_postgres.stop(how)
    eventually(lambda: answers(f"{api}/ready") == 503, "the API to say that it is not ready")
    refused = httpx2.post(f"{api}/api/v1/runs", json={"agent": "worker_bee", "input": {}}, timeout=30)
    eventually(lambda: "worker.paused" in fleet.log_of("worker"), "the worker to pause")

    assert answers(f"{api}/health") == 200
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    private_postgres.start()

    assert fleet.until_ended(ids, seconds=90) == {"succeeded": 30}
    assert fleet.executed_after_finished() == []
    eventually(lambda: answers(f"{api}/ready") == 200, "the API to be ready again")


def test_a_long_write_of_another_process_only_delays(sqlite_fleet: Fleet) -> None:
    sqlite_fleet.start_worker("worker")
    ids = sqlite_fleet.submit("worker_bee", 10, steps=5, pause_seconds=0.02)
    eventually(lambda: len(sqlite_fleet.executions()) > 5, "the runs to be under way")
    blocker = sqlite3.connect(sqlite_fleet.folder / "store.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    seen = len(sqlite_fleet.executions())
    eventually(lambda: len(sqlite_fleet.executions()) >= seen, "a look at what is held up")

    blocker.execute("ROLLBACK")
    blocker.close()

    assert sqlite_fleet.until_ended(ids) == {"succeeded": 10}
    assert sqlite_fleet.executed_after_finished() == []


def test_a_full_disk_is_said_to_be_one_and_survived(sqlite_fleet: Fleet) -> None:
    """A limit on the size of files stands for the disk: SQLite meets the same refusal of a write."""
    fleet, port = sqlite_fleet, free_port()
    api_process = fleet.start("api", "api", "--port", str(port))
    api = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(f"{api}/health") == 200, "the API to be up")
    limit = (fleet.folder / "store.db-wal").stat().st_size + 200_000
    resource.prlimit(api_process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    body: dict[str, object] = {"agent": "worker_bee", "input": {}, "tenant": "x" * 200}

    refused = eventually(lambda: _refusal(f"{api}/api/v1/runs", body), "the disk to be full")
    resource.prlimit(api_process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert refused.status_code == 503
    assert "disk" in refused.json()["detail"]
    assert answers(f"{api}/health") == 200
    accepted = httpx2.post(f"{api}/api/v1/runs", json=body, timeout=30)
    assert accepted.status_code == 202
    assert fleet.run(accepted.json()["id"])["state"] == "queued"


def _refusal(url: str, body: dict[str, object]) -> httpx2.Response | None:
    """The first answer that is no acceptance, of a handful."""
    batch = {"runs": [body] * 100}
    answer = httpx2.post(f"{url}:batch", json=batch, timeout=30)
    return None if answer.status_code == 200 else answer
