"""PgBouncer in transaction mode between every process and PostgreSQL: the same promises, kills included."""

from __future__ import annotations

import httpx2

from tests.crash.pgbouncer import SERVER_CONNECTIONS
from tests.crash.processes import Fleet
from tests.patience import WAIT_SECONDS

WIDE = ("--lanes", "normal=40", "--shared", "0")
RUNS, STEPS, QUEENS, KILLS = 100, 5, 3, 3


def test_kills_behind_pgbouncer_lose_nothing(pooled_fleet: Fleet) -> None:
    fleet = pooled_fleet
    url = fleet.start_api("api", "--scheduler")
    names = [f"worker-{number}" for number in range(SERVER_CONNECTIONS)]
    for name in names:
        fleet.start(name, "worker", *WIDE)
    ids = fleet.submit("worker_bee", RUNS, steps=STEPS, pause_seconds=0.01) + fleet.submit("queen", QUEENS, children=4)

    fleet.storm(names, WIDE, kills=KILLS, executions=30)

    assert fleet.until_ended(ids) == {"succeeded": RUNS + QUEENS}
    bees = {(each.run_id, each.step) for each in fleet.executions() if each.run_id in ids[:RUNS]}
    assert bees == {(run_id, f"step-{number}") for run_id in ids[:RUNS] for number in range(STEPS)}
    answer = httpx2.post(
        f"{url}/api/v1/runs", json={"agent": "worker_bee", "input": {"steps": 1}}, timeout=WAIT_SECONDS
    )
    assert fleet.until_ended([answer.json()["id"]]) == {"succeeded": 1}
