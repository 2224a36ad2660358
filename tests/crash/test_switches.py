"""A switch that is tripped under load, on real workers: what each has done is known from the marks that it left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from typing import Any, NamedTuple

import psutil
import pytest

from pilothouse.clock import SystemClock
from pilothouse.control import switches
from pilothouse.control.switchboard import FRESH_SECONDS
from pilothouse.control.switches import Proof, TripOrder
from pilothouse.domain.switches import SwitchMode
from tests.crash.processes import SURE_LEASE, Fleet, eventually
from tests.patience import WAIT_SECONDS

LIMIT_US = int(FRESH_SECONDS * 1_000_000)
RUNS, MARKS = 12, 60


class Mark(NamedTuple):
    run_id: str
    number: int
    at: int
    process_id: int


def marks(fleet: Fleet) -> list[Mark]:
    path = fleet.evidence.with_suffix(".marks")
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [Mark(run_id, *map(int, rest)) for run_id, *rest in lines]


class Trip(NamedTuple):
    """A trip as its operator saw it: when it was certainly committed, and the proof of the stop."""

    committed_at: int
    proof: Proof


def trip(fleet: Fleet, scope: str, mode: SwitchMode, *, deadline_seconds: float = 30.0) -> Trip:
    async def work() -> Trip:
        row = await switches.trip_switch(fleet.db, TripOrder(scope, mode, "a test"), principal="test")
        committed_at = SystemClock().now_us()
        return Trip(committed_at, await switches.prove_stop(fleet.db, row, deadline_seconds=deadline_seconds))

    return asyncio.run(work())


def reset(fleet: Fleet, scope: str) -> None:
    asyncio.run(switches.reset_switch(fleet.db, scope, principal="test"))


def stopped(fleet: Fleet, ids: list[str], states: set[str]) -> Counter[str]:
    def look() -> Counter[str] | None:
        found = fleet.states(ids)
        return found if found.keys() <= states | {"succeeded"} else None

    return eventually(look, f"all runs to be {states}")


def latest_us(fleet: Fleet, committed_at: int) -> int:
    """How long after the commit the last effect has begun; below 0 where it was before."""
    return max(mark.at for mark in marks(fleet)) - committed_at


@pytest.mark.parametrize(
    ("mode", "tool", "state"),
    [(SwitchMode.HOLD, "write_mark", "waiting"), (SwitchMode.ABORT, "put_mark", "queued")],
)
def test_no_effect_starts_later_than_a_quarter_of_a_second_after_a_trip(
    fleet: Fleet, mode: SwitchMode, tool: str, state: str
) -> None:
    fleet.start_worker("first", **SURE_LEASE)
    fleet.start_worker("second", **SURE_LEASE)
    ids = fleet.submit("marker", RUNS, marks=MARKS, tool=tool)
    eventually(lambda: len({mark.process_id for mark in marks(fleet)}) == 2, "both workers to be at work")
    eventually(lambda: len(marks(fleet)) > 2 * RUNS, "the runs to be under way")

    tripped = trip(fleet, "global", mode)

    assert tripped.proof.silent == []
    states = stopped(fleet, ids, {state, "queued"})
    assert states[state] > 0
    late_us = latest_us(fleet, tripped.committed_at)
    sys.stdout.write(f"{fleet.db.dialect} {mode}: the last effect began {late_us / 1000:.1f} ms after the commit\n")
    assert late_us < LIMIT_US
    before = len(marks(fleet))
    assert before < RUNS * MARKS, "everything had ended before the trip: this shows nothing"
    assert all(fleet.run(id)["failures"] == 0 for id in ids)

    reset(fleet, "global")

    assert fleet.until_ended(ids) == {"succeeded": RUNS}
    times = Counter((mark.run_id, mark.number) for mark in marks(fleet))
    assert len(times) == RUNS * MARKS
    if tool == "write_mark":
        assert set(times.values()) == {1}, "a write was repeated"


def stop_between_writes(fleet: Fleet, process_id: int) -> None:
    """On SQLite, a process that is stopped while it writes keeps everybody from writing, the operator too."""
    eventually(lambda: _stop(fleet, process_id), "the worker to be stopped between two writes")


def _stop(fleet: Fleet, process_id: int) -> bool:
    os.kill(process_id, signal.SIGSTOP)
    eventually(lambda: psutil.Process(process_id).status() == psutil.STATUS_STOPPED, "the worker to be stopped")
    if fleet.db.dialect == "postgres":
        return True
    connection = sqlite3.connect(fleet.folder / "store.db", timeout=0.2, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        os.kill(process_id, signal.SIGCONT)
        return False
    finally:
        connection.close()
    return True


def test_a_worker_that_was_stopped_by_its_machine_starts_nothing_when_it_goes_on(fleet: Fleet) -> None:
    """What it has seen of the switches last is too old by then."""
    worker = fleet.start_worker("worker", **SURE_LEASE)
    ids = fleet.submit("marker", 4, marks=200)
    eventually(lambda: len(marks(fleet)) > 20, "the runs to be under way")
    stop_between_writes(fleet, worker.pid)

    tripped = trip(fleet, "agent:marker", SwitchMode.HOLD, deadline_seconds=0.6)

    assert [row["pid"] for row in tripped.proof.silent] == [worker.pid]
    os.kill(worker.pid, signal.SIGCONT)
    stopped(fleet, ids, {"waiting", "queued"})
    assert latest_us(fleet, tripped.committed_at) < LIMIT_US
    reset(fleet, "agent:marker")
    assert fleet.until_ended(ids) == {"succeeded": 4}


def test_a_dead_worker_is_named_until_its_lease_has_run_out(fleet: Fleet) -> None:
    fleet.start_worker("alive", **SURE_LEASE)
    dead = fleet.start_worker("dead", **SURE_LEASE)
    worker_id = eventually(lambda: fleet.worker_of(dead.pid), "the worker")["id"]
    fleet.kill("dead")

    refused = command(fleet, "switch", "trip", "global", "--reason", "drill", "--verify", "--deadline", "0.5", "--json")

    assert refused.returncode == 1
    told = json.loads(refused.stdout)
    assert (told["scope"], told["reason"], told["proof"]["proved"]) == ("global", "drill", False)
    assert [row["id"] for row in told["proof"]["silent"]] == [worker_id]
    fleet.db.transaction_blocking(lambda tx: tx.execute("expire_worker", id=worker_id))
    proved = command(fleet, "switch", "trip", "global", "--verify", "--deadline", "30")
    assert proved.returncode == 0, proved.stderr
    assert "every live worker acts by it since" in proved.stdout
    assert "no effect started after it" in proved.stdout
    fleet.start("scheduler", "scheduler")
    eventually(lambda: fleet.worker_of(dead.pid, "lost"), "the dead worker to be reaped")


def command(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment: dict[str, Any] = os.environ | fleet.environment()
    return subprocess.run(
        [sys.executable, "-m", "pilothouse", *arguments],
        cwd=fleet.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
