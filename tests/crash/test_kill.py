"""SIGKILL: no run is lost, no finished step is executed again, no attempt is settled twice."""

from __future__ import annotations

import os
import random
from collections import Counter

import psutil

from pilothouse.control.run_lists import Filter, list_runs
from pilothouse.payloads import decode
from tests.crash.processes import LANES, SURE_LEASE, Fleet, eventually

SEED_VARIABLE = "PILOTHOUSE_TEST_SEED"
KILLS = 5


def test_a_killed_workers_runs_go_on_elsewhere_from_their_checkpoints(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    fleet.start_worker("victim")
    ids = fleet.submit("worker_bee", 12, steps=4, step_seconds=0.05, pause_seconds=0.05)
    eventually(lambda: len(fleet.executions()) > 10, "the victim to be in the middle of runs")

    fleet.kill("victim")
    fleet.start_worker("heir", **SURE_LEASE)

    assert fleet.until_ended(ids) == {"succeeded": 12}
    assert fleet.outcomes(ids)["lost"] >= 1
    assert fleet.outcomes(ids)["succeeded"] == 12
    for id in ids:  # the output was put together from checkpoints: it must agree with what was really executed
        last = dict(fleet.steps_executed(id))
        assert decode(fleet.run(id)["output"]) == last


async def test_a_storm_of_kills_loses_nothing(fleet: Fleet) -> None:
    chance = _chance()
    fleet.start("scheduler", "scheduler")
    names = ["worker-0", "worker-1", "worker-2"]
    for name in names:
        fleet.start_worker(name)
    bees = fleet.submit("worker_bee", 60, steps=5, step_seconds=0.03, pause_seconds=0.03)
    queens = fleet.submit("queen", 3, children=4)

    for _ in range(KILLS):
        seen = len(fleet.executions())
        enough = seen + chance.randint(5, 40)
        eventually(lambda enough=enough: len(fleet.executions()) >= enough, "work between two kills")  # type: ignore[misc]
        name = chance.choice(names)
        fleet.kill(name)
        fleet.start(name, "worker", *LANES)

    assert fleet.until_ended(bees + queens) == {"succeeded": 63}
    assert fleet.outcomes(bees + queens)["lost"] > 0, "no kill has hit a run, so this shows nothing"
    for id in bees:
        assert dict(fleet.steps_executed(id)).keys() == {f"step-{number}" for number in range(5)}
    for id in queens:
        children = (await list_runs(fleet.db, Filter(parent_id=id), limit=100)).rows
        assert Counter(child["state"] for child in children) == {"succeeded": 4}


def test_two_worker_processes_never_take_the_same_run(fleet: Fleet) -> None:
    fleet.start_worker("one", **SURE_LEASE)
    fleet.start_worker("two", **SURE_LEASE)

    ids = fleet.submit("worker_bee", 150, steps=1, pause_seconds=0.0)

    assert fleet.until_ended(ids) == {"succeeded": 150}
    assert {len(fleet.attempts(id)) for id in ids} == {1}
    assert Counter(each.run_id for each in fleet.executions()) == dict.fromkeys(ids, 1)
    assert len({each.process_id for each in fleet.executions()}) == 2, "both must have a share, or this shows nothing"


def test_a_run_that_kills_its_worker_ends_as_failed_and_others_are_unharmed(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    fleet.start("workers", "worker", *LANES, "--processes", "2")
    others = fleet.submit("worker_bee", 10, steps=3)
    poison = [*fleet.submit("poison", way="exit"), *fleet.submit("poison", way="kill")]

    assert fleet.until_ended(poison) == {"failed": 2}
    assert fleet.until_ended(others) == {"succeeded": 10}
    for id in poison:
        assert decode(fleet.run(id)["error"])["type"] == "WorkerLost"
        assert [attempt["state"] for attempt in fleet.attempts(id)] == ["lost"] * 3
    assert fleet.until_ended(fleet.submit("worker_bee", 2)) == {"succeeded": 2}


def test_an_isolated_attempt_dies_with_its_worker_and_goes_on_elsewhere(fleet: Fleet) -> None:
    fleet.start("scheduler", "scheduler")
    fleet.start_worker("victim")
    ids = fleet.submit("walled")
    (process_id,) = eventually(
        lambda: {each.process_id for each in fleet.executions() if each.step == "gate"}, "the second step"
    )
    assert process_id != fleet.processes["victim"].pid

    fleet.kill("victim")
    eventually(lambda: not psutil.pid_exists(process_id), "the isolated process to be gone with its worker")
    fleet.gate.touch()
    fleet.start_worker("heir", **SURE_LEASE)

    assert fleet.until_ended(ids) == {"succeeded": 1}
    assert [step for step, _ in fleet.steps_executed(ids[0])] == ["before", "gate", "gate"]


def _chance() -> random.Random:
    seed = int(os.environ.get(SEED_VARIABLE) or random.randrange(2**32))
    print(f"run it again with {SEED_VARIABLE}={seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)
