"""A worker killed at every point of a run, one after the other: its run goes on, and nothing happens twice."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from pilothouse.control import agents
from tests.crash.kill_points import POINTS, app
from tests.crash.processes import SURE_LEASE, Fleet, eventually

APP = {"PILOTHOUSE_APP": "tests.crash.kill_points:app"}
AT_ONCE = 8
FEWEST_POINTS = 20
EACH_POINT = {
    "before write_checkpoints": 4,
    "after write_checkpoints, before the commit": 4,
    "before settle_attempts": 3,
    "after settle_attempts, before the commit": 3,
    "after claim_runs, before the commit": 3,
    "heard of the commit": 8,
}
"""The least a life passes: two steps, a timer and a child of the parent, and the child's own life. The parent is
claimed a third time where its child has not ended before it asks for the result."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_may_die_at_any_point(fleet: Fleet) -> None:
    cards = [agent.card(app.name, 300.0) for agent in app.agents.values()]
    fleet.db.transaction_blocking(lambda tx: agents.register(tx, cards, principal="test"))
    points = passed_by(fleet, 0)
    counted = Counter(points)
    assert all(counted[point] >= least for point, least in EACH_POINT.items()), counted
    assert FEWEST_POINTS <= len(points) < POINTS - 2, counted

    ids = []
    for first in range(1, len(points) + 1, AT_ONCE):
        ids += kill_at(fleet, range(first, min(first + AT_ONCE, len(points) + 1)))
    fleet.start("scheduler", "scheduler", **APP)
    fleet.start("heir", "worker", **APP, **SURE_LEASE)

    assert fleet.until_ended(ids) == {"succeeded": len(ids)}
    assert fleet.outcomes(ids)["lost"] > 0
    for id in ids:
        assert {step for step, _ in fleet.steps_executed(id)} == {"first", "second"}


def passed_by(fleet: Fleet, kill_at: int) -> list[str]:
    """The points of a life that is not cut short."""
    ids = fleet.submit("life-0")
    start(fleet, kill_at)
    assert fleet.until_ended(ids) == {"succeeded": 1}
    fleet.kill("victim-0")
    return points_of(fleet, 0).read_text().splitlines()


def kill_at(fleet: Fleet, points: range) -> list[str]:
    """One victim for each point, all of them dead; the runs they leave behind."""
    ids = [id for point in points for id in fleet.submit(f"life-{point}")]
    for point in points:
        start(fleet, point)
    for point, id in zip(points, ids, strict=True):
        victim = fleet.processes[f"victim-{point}"]
        eventually(lambda: victim.poll() is not None or fleet.states([id])["succeeded"], f"the death at {point}")  # noqa: B023
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
    return ids


def start(fleet: Fleet, point: int) -> None:
    fleet.start(
        f"victim-{point}",
        "worker",
        "--agents",
        f"life-{point},child-{point}",
        **APP,
        KILL_AT=str(point),
        POINTS_FILE=str(points_of(fleet, point)),
    )


def points_of(fleet: Fleet, point: int) -> Path:
    return fleet.folder / f"points-{point}"
