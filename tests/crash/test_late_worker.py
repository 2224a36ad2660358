"""A worker that slept through its lease: others have its runs, it can change nothing, and it comes back as another."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time

import psycopg

from pilothouse.payloads import decode
from tests.crash.processes import SURE_LEASE, Fleet, eventually

INSIDE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)
STILL_SECONDS = 0.05


def test_a_worker_that_slept_through_its_lease_changes_nothing_and_works_on(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    sleeper = fleet.start_worker("sleeper")
    ids = fleet.submit("gated", 3)
    eventually(lambda: len(fleet.executions()) == 6, "the runs to be at the gate")
    (first_id,) = (row["id"] for row in fleet.workers() if row["pid"] == sleeper.pid)

    put_to_sleep(fleet, sleeper)
    eventually(lambda: fleet.states(ids) == {"queued": 3}, "the sleeper's lease to be reaped")
    fleet.gate.touch()
    fleet.start_worker("heir", **SURE_LEASE)
    assert fleet.until_ended(ids) == {"succeeded": 3}
    outputs = [fleet.run(id)["output"] for id in ids]
    fleet.processes["heir"].terminate()
    assert fleet.wait("heir") == 0
    sleeper.send_signal(signal.SIGCONT)  # its steps end now, and it wants to write what they gave

    again = eventually(lambda: fleet.worker_of(sleeper.pid), "the sleeper to come back")
    assert again["id"] != first_id
    eventually(lambda: fleet.log_of("sleeper").count('"run.dropped"') == 3, "the late results to be dropped")
    assert [decode(output) for output in outputs] == [[1, 2, 2]] * 3
    assert [fleet.run(id)["output"] for id in ids] == outputs
    assert fleet.outcomes(ids) == {"lost": 3, "succeeded": 3}
    assert fleet.until_ended(fleet.submit("worker_bee", steps=1)) == {"succeeded": 1}


def put_to_sleep(fleet: Fleet, process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP between two transactions: inside one it would hold locks that keep everybody waiting."""

    def is_asleep_outside() -> bool:
        process.send_signal(signal.SIGSTOP)
        if holds_nothing(fleet):
            return True
        process.send_signal(signal.SIGCONT)
        return False

    eventually(is_asleep_outside, "a moment between two transactions")


def holds_nothing(fleet: Fleet) -> bool:
    """Whether no transaction stays open; one that is merely under way has ended by the second look."""
    if fleet.db.dialect == "sqlite":
        with sqlite3.connect(fleet.folder / "store.db", isolation_level=None, timeout=STILL_SECONDS) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
            return True
    with psycopg.connect(fleet.database_url, autocommit=True) as connection:
        time.sleep(STILL_SECONDS)
        row = connection.execute(INSIDE).fetchone()
        return row == (0,)
