"""Stopping on purpose: drain, release at the last checkpoint, exit 0; and roles that outlive each other."""

from __future__ import annotations

import signal

from tests.crash.processes import Fleet, answers, eventually, free_port


def test_sigterm_lets_short_runs_finish_and_exits_with_0(sqlite_fleet: Fleet) -> None:
    worker = sqlite_fleet.start_worker("worker")
    ids = sqlite_fleet.submit("worker_bee", 6, steps=4, pause_seconds=0.05)
    eventually(lambda: len(sqlite_fleet.executions()) >= 6, "the runs to be under way")

    worker.terminate()

    assert sqlite_fleet.wait("worker") == 0
    assert sqlite_fleet.states(ids) == {"succeeded": 6}
    assert sqlite_fleet.worker_of(worker.pid, "stopped")


def test_what_does_not_finish_in_time_is_released_at_its_last_checkpoint(fleet: Fleet) -> None:
    worker = fleet.start_worker("worker", PILOTHOUSE_DRAIN_SECONDS="0.2")
    (run_id,) = fleet.submit("gated")
    eventually(lambda: fleet.executions() == [(run_id, "before", 1)], "the run to be at the gate")

    worker.terminate()

    assert fleet.wait("worker") == 0
    row = fleet.run(run_id)
    assert (row["state"], row["failures"], row["losses"]) == ("queued", 0, 0)
    fleet.gate.touch()
    fleet.start_worker("next")
    assert fleet.until_ended([run_id]) == {"succeeded": 1}
    assert fleet.executions() == [(run_id, "before", 1), (run_id, "after", 2)]


def test_a_second_signal_exits_at_once(sqlite_fleet: Fleet) -> None:
    worker = sqlite_fleet.start_worker("worker")
    (run_id,) = sqlite_fleet.submit("gated")
    eventually(lambda: sqlite_fleet.executions() == [(run_id, "before", 1)], "the run to be at the gate")
    worker.terminate()
    eventually(lambda: "worker.draining" in sqlite_fleet.log_of("worker"), "the worker to drain")

    worker.send_signal(signal.SIGINT)

    assert sqlite_fleet.wait("worker") == 130
    sqlite_fleet.gate.touch()
    sqlite_fleet.start("scheduler", "scheduler")
    sqlite_fleet.start_worker("next")
    assert sqlite_fleet.until_ended([run_id]) == {"succeeded": 1}


def test_ctrl_c_of_up_is_quiet(sqlite_fleet: Fleet) -> None:
    up = sqlite_fleet.start("up", "up", "--port", "0")
    eventually(lambda: sqlite_fleet.worker_of(up.pid), "up to be up")

    up.send_signal(signal.SIGINT)

    assert sqlite_fleet.wait("up") == 0
    assert "Traceback" not in sqlite_fleet.log_of("up")


def test_a_handler_that_cannot_be_stopped_does_not_keep_the_worker_from_exiting(sqlite_fleet: Fleet) -> None:
    worker = sqlite_fleet.start_worker("worker", PILOTHOUSE_DRAIN_SECONDS="0.1")
    (run_id,) = sqlite_fleet.submit("stubborn")
    eventually(lambda: sqlite_fleet.run(run_id)["state"] == "running", "the run to run")

    worker.terminate()

    assert sqlite_fleet.wait("worker") == 0
    assert sqlite_fleet.run(run_id)["state"] == "queued"


def test_killing_one_role_leaves_the_others_serving(fleet: Fleet) -> None:
    port = free_port()
    fleet.start("scheduler", "scheduler")
    fleet.start("api", "api", "--port", str(port))
    fleet.start_worker("worker")
    eventually(lambda: answers(f"http://127.0.0.1:{port}/ready") == 200, "the API to be ready")

    fleet.processes["scheduler"].kill()
    assert fleet.until_ended(fleet.submit("worker_bee", 3, steps=1)) == {"succeeded": 3}
    fleet.processes["worker"].kill()
    assert answers(f"http://127.0.0.1:{port}/health") == 200
    assert answers(f"http://127.0.0.1:{port}/api/v1/runs") == 200
    fleet.processes["api"].kill()

    fleet.start("scheduler", "scheduler")
    fleet.start_worker("worker")
    assert fleet.until_ended(fleet.submit("worker_bee", 3, steps=1)) == {"succeeded": 3}


def test_a_worker_process_that_died_is_started_again(sqlite_fleet: Fleet) -> None:
    parent = sqlite_fleet.start("workers", "worker", "--processes", "2")

    def live() -> list[int]:
        rows = sqlite_fleet.db.read_blocking(lambda tx: tx.fetch_all("list_workers", limit=100))
        return [row["pid"] for row in rows if row["state"] == "running" and row["lease_until"] > row["now"]]

    first = eventually(lambda: pids if len(pids := live()) == 2 else None, "two workers")
    import os

    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: set(live()) - set(first), "a new worker in the place of the dead one")

    parent.terminate()
    assert sqlite_fleet.wait("workers") == 0
