"""SIGKILL: no run is lost, no finished step is executed again, no attempt is settled twice."""

from __future__ import annotations

import random
import signal
from collections import Counter

from tests.crash.processes import Fleet, eventually


def test_a_killed_workers_runs_go_on_elsewhere_from_their_checkpoints(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    victim = fleet.start_worker("victim")
    ids = fleet.submit("worker_bee", 12, steps=4, pause_seconds=0.05)
    eventually(lambda: len(fleet.executions()) > 10, "the victim to be in the middle of runs")

    victim.kill()
    fleet.start_worker("heir")

    assert fleet.until_ended(ids) == {"succeeded": 12}
    assert fleet.executed_after_finished() == []
    outcomes = Counter(attempt["state"] for id in ids for attempt in fleet.attempts(id))
    assert outcomes["lost"] >= 1
    assert outcomes["succeeded"] == 12


def test_a_storm_of_kills_loses_nothing(fleet: Fleet) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    fleet.start("scheduler", "scheduler")
    names = [f"worker-{number}" for number in range(3)]
    for name in names:
        fleet.start_worker(name)
    ids = fleet.submit("worker_bee", 60, steps=5, pause_seconds=0.03)

    for kill in range(5):
        seen = len(fleet.executions())
        eventually(lambda seen=seen: len(fleet.executions()) > seen + 8, "work between two kills")  # type: ignore[misc]
        name = chance.choice(names)
        fleet.processes[name].kill()
        fleet.wait(name)
        fleet.start(name, "worker", "--lanes", "critical=1,normal=6,low=1", "--shared", "0")
        assert kill < 5

    assert fleet.until_ended(ids, seconds=90) == {"succeeded": 60}
    assert fleet.executed_after_finished() == []
    executed = {(run_id, step) for run_id, step, _ in fleet.executions()}
    assert executed == {(run_id, f"step-{number}") for run_id in ids for number in range(5)}


def test_two_worker_processes_never_take_the_same_run(fleet: Fleet) -> None:
    fleet.start_worker("one")
    fleet.start_worker("two")

    ids = fleet.submit("worker_bee", 150, steps=1, pause_seconds=0.0)

    assert fleet.until_ended(ids) == {"succeeded": 150}
    assert {len(fleet.attempts(id)) for id in ids} == {1}
    assert len(fleet.executions()) == 150
    workers = Counter(fleet.attempts(id)[0]["worker_id"] for id in ids)
    assert len(workers) == 2, "both must have had a share, or this shows nothing"


def test_a_run_that_kills_its_worker_ends_as_failed_and_others_are_unharmed(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    fleet.start("workers", "worker", "--processes", "2")
    others = fleet.submit("worker_bee", 10, steps=3)
    (poison,) = fleet.submit("poison")

    assert fleet.until_ended([poison], seconds=90) == {"failed": 1}
    assert '"type":"WorkerLost"' in fleet.run(poison)["error"]
    assert fleet.until_ended(others) == {"succeeded": 10}
    assert fleet.executed_after_finished() == []


def test_a_worker_that_slept_through_its_lease_changes_nothing_and_works_on(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    sleeper = fleet.start_worker("sleeper")
    (run_id,) = fleet.submit("gated")
    eventually(lambda: fleet.executions() == [(run_id, "before", 1)], "the sleeper to be at the gate")

    sleeper.send_signal(signal.SIGSTOP)
    eventually(lambda: fleet.run(run_id)["state"] == "queued", "the sleeper's lease to be reaped")
    fleet.start_worker("heir")
    fleet.gate.touch()
    assert fleet.until_ended([run_id]) == {"succeeded": 1}
    fleet.processes["heir"].terminate()
    assert fleet.wait("heir") == 0
    sleeper.send_signal(signal.SIGCONT)

    eventually(lambda: fleet.worker_of(sleeper.pid), "the sleeper to come back under a new id")
    assert [attempt["state"] for attempt in fleet.attempts(run_id)] == ["lost", "succeeded"]
    assert fleet.until_ended(fleet.submit("worker_bee", steps=1)) == {"succeeded": 1}
