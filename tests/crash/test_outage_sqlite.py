"""SQLite that cannot be written for a while: another process holds the lock, or the disk is full. Nothing is lost."""

from __future__ import annotations

import resource
import sqlite3

import httpx2

from tests.crash.processes import Fleet, answers, eventually


def test_a_long_write_of_another_process_only_delays(sqlite_fleet: Fleet) -> None:
    sqlite_fleet.start_worker("worker")
    ids = sqlite_fleet.submit("worker_bee", 10, steps=5, pause_seconds=0.02)
    eventually(lambda: len(sqlite_fleet.executions()) > 5, "the runs to be under way")
    blocker = sqlite3.connect(sqlite_fleet.folder / "store.db", isolation_level=None, timeout=30)
    blocker.execute("BEGIN IMMEDIATE")
    held_up = sqlite_fleet.states(ids)

    blocker.execute("ROLLBACK")
    blocker.close()

    assert held_up["succeeded"] < 10
    assert sqlite_fleet.until_ended(ids) == {"succeeded": 10}


def test_a_full_disk_is_said_to_be_one_and_survived(sqlite_fleet: Fleet) -> None:
    """A limit on the size of files stands for the disk: SQLite meets the same refusal of a write."""
    fleet = sqlite_fleet
    api = fleet.start_api()
    api_process = fleet.processes["api"].pid
    limit = (fleet.folder / "store.db-wal").stat().st_size + 200_000
    resource.prlimit(api_process, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    body: dict[str, object] = {"agent": "worker_bee", "input": {}, "tenant": "x" * 200}

    refused = eventually(lambda: _refusal(f"{api}/api/v1/runs", body), "the disk to be full")
    resource.prlimit(api_process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert refused.status_code == 503
    assert "disk" in refused.json()["detail"]
    assert answers(f"{api}/health") == 200
    accepted = httpx2.post(f"{api}/api/v1/runs", json=body, timeout=30)
    assert accepted.status_code == 202
    assert fleet.run(accepted.json()["id"])["state"] == "queued"


def _refusal(url: str, body: dict[str, object]) -> httpx2.Response | None:
    """The first answer that is no acceptance."""
    answer = httpx2.post(f"{url}:batch", json={"runs": [body] * 100}, timeout=30)
    return None if answer.status_code == 200 else answer
