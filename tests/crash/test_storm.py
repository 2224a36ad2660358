"""A storm of SIGKILLs: whatever dies at whatever moment, every run ends once and no finished step runs again."""

from __future__ import annotations

import random

from tests.crash.processes import LANES, Fleet, eventually

RUNS, STEPS, KILLS = 60, 5, 5


def test_a_storm_of_kills_loses_nothing(fleet: Fleet) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    fleet.start("scheduler", "scheduler")
    names = [f"worker-{number}" for number in range(3)]
    for name in names:
        fleet.start_worker(name)
    ids = fleet.submit("worker_bee", RUNS, steps=STEPS, pause_seconds=0.03)

    for _ in range(KILLS):
        seen = len(fleet.executions())
        eventually(lambda seen=seen: len(fleet.executions()) > seen + 8, "work between two kills")  # type: ignore[misc]
        name = chance.choice(names)
        fleet.kill(name)
        fleet.start(name, "worker", *LANES)

    assert fleet.until_ended(ids, seconds=90) == {"succeeded": RUNS}
    executed = {(each.run_id, each.step) for each in fleet.executions()}
    assert executed == {(run_id, f"step-{number}") for run_id in ids for number in range(STEPS)}
