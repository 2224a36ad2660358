"""The SQLite file cannot be written for a while: locked by another process, or on a disk that is full or broken."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.crash.conftest import launched
from tests.crash.processes import Fleet, answers, eventually
from tests.crash.small_disk import fill, small_disk
from tests.patience import WAIT_SECONDS

LEASE_SECONDS = 3.0
LEASE = {"PILOTHOUSE_LEASE_SECONDS": str(LEASE_SECONDS)}
RUN = {"agent": "worker_bee", "input": {"steps": 1}}


@pytest.fixture
def full_disk_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Its database is alone on a small disk; logs and evidence are elsewhere."""
    with (
        small_disk(tmp_path / "disk", mebibytes=8) as disk,
        launched(tmp_path, f"sqlite:///{disk / 'store.db'}") as fleet,
    ):
        yield fleet


def test_a_long_write_of_another_process_only_delays(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    url = fleet.start_api("api", "--scheduler", **LEASE)
    for name in ("one", "two"):
        fleet.start_worker(name, **LEASE)
    ids = fleet.submit("worker_bee", 30, steps=5, step_seconds=0.02, pause_seconds=0.02)
    eventually(lambda: len(fleet.executions()) > 20, "the runs to be under way")
    answered: list[httpx2.Response] = []
    asking = threading.Thread(
        target=lambda: answered.append(httpx2.post(f"{url}/api/v1/runs", json=RUN, timeout=WAIT_SECONDS))
    )

    with closing(sqlite3.connect(fleet.folder / "store.db", isolation_level=None, timeout=WAIT_SECONDS)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        asking.start()
        time.sleep(1.7 * LEASE_SECONDS)  # meanwhile no worker can renew its lease, and no janitor can know that
        assert answers(f"{url}/api/v1/runs") == 200
        assert answered == []
        blocker.execute("ROLLBACK")

    assert fleet.until_ended(ids) == {"succeeded": 30}
    assert fleet.outcomes(ids) == {"succeeded": 30}, "the wait costs no attempt"
    asking.join(30)
    assert [answer.status_code for answer in answered] == [202]


def test_a_full_disk_is_said_to_be_one_and_survived(full_disk_fleet: Fleet) -> None:
    fleet = full_disk_fleet
    url = fleet.start_api("api", "--scheduler", **LEASE)
    fleet.start_worker("worker", **LEASE)
    ids = fleet.submit("worker_bee", 60, steps=6, pause_seconds=0.02)
    eventually(lambda: len(fleet.executions()) > 30, "the runs to be under way")

    filler = fill(fleet.folder / "disk")
    refused = eventually(lambda: refusal(url), "the disk to be full")
    eventually(lambda: "worker.paused" in fleet.log_of("worker"), "the worker to pause")
    assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
    assert "is full; free some space" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert answers(f"{url}/health") == 200
    assert answers(f"{url}/api/v1/runs") == 200, "what is there can be read"
    time.sleep(LEASE_SECONDS)  # nobody can renew a lease, and nobody may be punished for it
    filler.unlink()

    assert fleet.until_ended(ids) == {"succeeded": 60}
    assert fleet.outcomes(ids) == {"succeeded": 60}
    eventually(lambda: "worker.resumed" in fleet.log_of("worker"), "the worker to say that it resumes")
    taken = httpx2.post(f"{url}/api/v1/runs", json=RUN, timeout=WAIT_SECONDS)
    assert fleet.until_ended([taken.json()["id"]]) == {"succeeded": 1}


def test_a_process_whose_writes_fail_says_so_and_works_again(sqlite_fleet: Fleet) -> None:
    """A limit on the size of files, which needs no root: SQLite meets a write that the system refuses."""
    fleet = sqlite_fleet
    url = fleet.start_api()
    process_id = fleet.processes["api"].pid
    size = (fleet.folder / "store.db-wal").stat().st_size

    resource.prlimit(process_id, resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
    refused = eventually(lambda: refusal(url), "a write to fail")
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert "disk" in refused.json()["detail"]
    assert answers(f"{url}/health") == 200
    resource.prlimit(process_id, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    taken = httpx2.post(f"{url}/api/v1/runs", json=RUN, timeout=WAIT_SECONDS)
    assert taken.status_code == 202
    assert fleet.run(taken.json()["id"])["state"] == "queued"


def refusal(url: str) -> httpx2.Response | None:
    """The first answer that is no acceptance, of a handful of larger ones."""
    answer = httpx2.post(
        f"{url}/api/v1/runs:batch", json={"runs": [RUN | {"tenant": "x" * 200}] * 50}, timeout=WAIT_SECONDS
    )
    return None if answer.status_code == 200 else answer
