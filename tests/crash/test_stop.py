"""Stopping on purpose: drain, release at the last checkpoint, exit 0; what a second signal and a lost keeper do."""

from __future__ import annotations

import os
import signal

import psutil

from pilothouse.payloads import decode
from tests.crash.processes import LANES, SURE_LEASE, Fleet, eventually

LONG_DRAIN = {"PILOTHOUSE_DRAIN_SECONDS": "60"}


def test_sigterm_lets_short_runs_finish_claims_nothing_more_and_exits_with_0(fleet: Fleet) -> None:
    worker = fleet.start_worker("worker", **LONG_DRAIN, **SURE_LEASE)
    ids = fleet.submit("gated", 6)
    eventually(lambda: len(fleet.executions()) == 12, "every slot to be taken")
    rest = fleet.submit("worker_bee", 3)

    worker.terminate()
    eventually(lambda: "worker.draining" in fleet.log_of("worker"), "the worker to drain")
    fleet.gate.touch()

    assert fleet.wait("worker") == 0
    assert fleet.states(ids) == {"succeeded": 6}
    assert fleet.outcomes(ids) == {"succeeded": 6}
    assert fleet.states(rest) == {"queued": 3}
    assert fleet.worker_of(worker.pid, "stopped")


def test_what_does_not_finish_in_time_is_released_at_its_last_checkpoint(fleet: Fleet) -> None:
    worker = fleet.start_worker("worker", PILOTHOUSE_DRAIN_SECONDS="0.2")
    (run_id,) = fleet.submit("gated")
    eventually(lambda: fleet.steps_executed(run_id) == [("before", 1), ("gate", 1)], "the run to be at the gate")

    worker.terminate()

    assert fleet.wait("worker") == 0
    row = fleet.run(run_id)
    assert (row["state"], row["failures"], row["losses"]) == ("queued", 0, 0)
    fleet.gate.touch()
    fleet.start_worker("next", **SURE_LEASE)
    assert fleet.until_ended([run_id]) == {"succeeded": 1}
    assert fleet.steps_executed(run_id) == [("before", 1), ("gate", 1), ("gate", 2), ("after", 2)]
    assert decode(fleet.run(run_id)["output"]) == [1, 2, 2]


def test_a_second_signal_exits_at_once(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    worker = fleet.start_worker("worker", **LONG_DRAIN)
    (run_id,) = fleet.submit("gated")
    eventually(lambda: len(fleet.executions()) == 2, "the run to be at the gate")
    worker.terminate()
    eventually(lambda: "worker.draining" in fleet.log_of("worker"), "the worker to drain")

    worker.send_signal(signal.SIGINT)

    assert fleet.wait("worker") == 130
    fleet.gate.touch()
    fleet.start("scheduler", "scheduler")
    fleet.start_worker("next", **SURE_LEASE)
    assert fleet.until_ended([run_id]) == {"succeeded": 1}
    assert decode(fleet.run(run_id)["output"]) == [1, 2, 2]


def test_ctrl_c_of_up_releases_what_runs_and_is_quiet(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    up = fleet.start("up", "up", "--port", "0", PILOTHOUSE_DRAIN_SECONDS="0.2")
    eventually(lambda: fleet.worker_of(up.pid), "up to be up")
    (run_id,) = fleet.submit("gated")
    eventually(lambda: len(fleet.executions()) == 2, "the run to be at the gate")

    os.killpg(up.pid, signal.SIGINT)  # as a terminal does

    assert fleet.wait("up") == 0
    assert "Traceback" not in fleet.log_of("up")
    assert fleet.states([run_id]) == {"queued": 1}


def test_a_handler_that_cannot_be_stopped_does_not_keep_the_worker_from_exiting(sqlite_fleet: Fleet) -> None:
    worker = sqlite_fleet.start_worker("worker", PILOTHOUSE_DRAIN_SECONDS="0.1")
    (run_id,) = sqlite_fleet.submit("stubborn")
    eventually(lambda: sqlite_fleet.run(run_id)["state"] == "running", "the run to run")

    worker.terminate()

    assert sqlite_fleet.wait("worker") == 0
    assert sqlite_fleet.run(run_id)["state"] == "queued"


def test_one_sigterm_stops_all_worker_processes(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    parent = fleet.start("workers", "worker", *LANES, "--processes", "2", PILOTHOUSE_DRAIN_SECONDS="0.2")
    eventually(lambda: len(fleet.live_workers()) == 2, "two workers")
    ids = fleet.submit("gated", 8)
    eventually(lambda: len(fleet.executions()) == 16, "all runs to be at the gate")

    parent.terminate()

    assert fleet.wait("workers") == 0
    assert fleet.states(ids) == {"queued": 8}
    assert fleet.live_workers() == []


def test_a_sigterm_while_worker_processes_are_still_starting_stops_them(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    parent = fleet.start("workers", "worker", *LANES, "--processes", "3")
    eventually(lambda: psutil.Process(parent.pid).children(), "the first child")

    parent.terminate()

    assert fleet.wait("workers") == 0
    assert fleet.live_workers() == []


def test_worker_processes_whose_keeper_was_killed_drain_and_end(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    fleet.start("workers", "worker", *LANES, "--processes", "2", PILOTHOUSE_DRAIN_SECONDS="0.2")
    eventually(lambda: len(fleet.live_workers()) == 2, "two workers")
    children = [psutil.Process(process_id) for process_id in fleet.live_workers()]

    fleet.kill("workers")

    eventually(lambda: not any(child.is_running() for child in children), "the children to end")
    assert {row["state"] for row in fleet.workers()} == {"stopped"}


def test_a_worker_process_that_died_is_started_again(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    fleet.start("scheduler", "scheduler")
    parent = fleet.start("workers", "worker", *LANES, "--processes", "2")
    first = eventually(lambda: pids if len(pids := fleet.live_workers()) == 2 else None, "two workers")
    ids = fleet.submit("worker_bee", 20, steps=4, step_seconds=0.05)
    eventually(lambda: len(fleet.executions()) > 10, "the runs to be under way")

    os.kill(first[0], signal.SIGKILL)

    eventually(lambda: set(fleet.live_workers()) - set(first), "a new worker in the place of the dead one")
    assert fleet.until_ended(ids) == {"succeeded": 20}
    parent.terminate()
    assert fleet.wait("workers") == 0
