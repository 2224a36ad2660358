"""A storm of SIGKILLs: whatever dies at whatever moment, every run ends once and no finished step runs again."""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.processes import LANES, Fleet, eventually

RUNS, STEPS, KILLS = 60, 5, 5
MANY_RUNS, KILL_EVERY_SECONDS = 2000, 0.3
WIDE = ("--lanes", "normal=40", "--shared", "0")


def test_a_storm_of_kills_loses_nothing(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    names = [f"worker-{number}" for number in range(3)]
    for name in names:
        fleet.start_worker(name)
    ids = fleet.submit("worker_bee", RUNS, steps=STEPS, pause_seconds=0.03)

    fleet.storm(names, LANES, kills=KILLS, executions=8)

    assert fleet.until_ended(ids) == {"succeeded": RUNS}
    executed = {(each.run_id, each.step) for each in fleet.executions()}
    assert executed == {(run_id, f"step-{number}") for run_id in ids for number in range(STEPS)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_long_storm_loses_nothing(fleet: Fleet) -> None:
    """Three workers, one of those that work killed every 300 ms until most has ended; then the calm, and the rest ends.

    The rest needs the calm: a run that was lost often waits up to a minute between attempts, and a worker that is
    killed as soon as it works may have no time for it.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    fleet.start("scheduler", "scheduler")
    names = [f"worker-{number}" for number in range(3)]
    for name in names:
        fleet.start(name, "worker", *WIDE)
    ids = fleet.submit("worker_bee", MANY_RUNS, steps=STEPS, pause_seconds=0.0)
    kills = 0

    def one_more_kill() -> bool:
        nonlocal kills
        time.sleep(KILL_EVERY_SECONDS)  # the storm's own rhythm
        working = [name for name in names if fleet.worker_of(fleet.processes[name].pid)]
        if working:
            name = chance.choice(working)
            fleet.kill(name)
            fleet.start(name, "worker", *WIDE)
            kills += 1
        return fleet.states(ids)["succeeded"] > 0.95 * MANY_RUNS

    eventually(one_more_kill, "most runs to succeed", seconds=300)

    assert kills > 10
    assert fleet.until_ended(ids) == {"succeeded": MANY_RUNS}
    executed = {(each.run_id, each.step) for each in fleet.executions()}
    assert executed == {(run_id, f"step-{number}") for run_id in ids for number in range(STEPS)}
