"""Experiment."""
from __future__ import annotations
import time, os
from pathlib import Path
from collections import Counter
import pytest
from tests.crash.processes import Fleet, answers, eventually, free_port
from tests.crash.test_outage import postgres_fleet  # noqa
from tests.postgres_server import PostgresServer

def test_long(postgres_fleet: Fleet, private_postgres: PostgresServer) -> None:
    fleet = postgres_fleet
    fleet.start("scheduler", "scheduler")
    for n in range(3):
        fleet.start_worker(f"w{n}", PILOTHOUSE_LEASE_SECONDS="8", LOG_LEVEL="debug")
    ids = fleet.submit("worker_bee", 200, steps=8, pause_seconds=0.0)
    eventually(lambda: len(fleet.executions()) > 100, "under way")
    private_postgres.stop("immediate")
    time.sleep(float(os.environ.get("AWAY", "16")))
    private_postgres.start()
    try:
        print(fleet.until_ended(ids, seconds=40))
    except AssertionError:
        print("STUCK", fleet.states(ids))
    rows = fleet.db.read_blocking(lambda tx: tx.fetch_all("list_workers", limit=100))
    print([(r["state"], r["running"]) for r in rows])
    print(len(fleet.executions()), fleet.executed_after_finished())
    print(Counter(a["state"] for i in ids for a in fleet.attempts(i)))
    for n in range(3):
        log = fleet.log_of(f"w{n}")
        print(n, [l for l in log.splitlines() if "worker." in l or "unknown" in l or "dropped" in l][:40])
    print([v for v in fleet.broken_invariants()])
