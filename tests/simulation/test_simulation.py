"""Hundreds of worlds, each with faults of its own, in which nothing may be lost and nothing may happen twice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from pilothouse.control import attempts, outcomes, waits
from pilothouse.control.concurrency import Headroom
from pilothouse.engine.journal import Journal
from pilothouse.engine.pump import Pump
from pilothouse.store.database import Transaction
from tests.simulation.world import World

SEEDS = 125
"""In each of four processes; `python -m tests.simulation` looks at as many as one likes."""

FEW_SEEDS = 60
FINDING_SEEDS = 80
"""In how many worlds a planted bug must show."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(FEW_SEEDS, 4 * SEEDS, SEEDS))
def test_everything_holds_in_hundreds_of_worlds(first: int) -> None:
    done = simulate("--first", str(first), "--seeds", str(SEEDS), "--jobs", "1")

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert done.stdout.startswith(f"{SEEDS} worlds"), done.stdout


def test_everything_holds_in_a_few_worlds() -> None:
    done = simulate("--seeds", str(FEW_SEEDS), "--jobs", "1")

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    lives = re.search(r"(\d+) runs, (\d+) attempts, .* (\d+) lives of processes ended", done.stdout)
    assert lives is not None
    runs, tries, ended = map(int, lives.groups())
    assert runs > 10 * FEW_SEEDS / 2
    assert tries > runs * 1.2, "hardly anything went wrong: the faults do not reach the engine"
    assert ended > 2 * FEW_SEEDS


def test_a_seed_replays_exactly() -> None:
    once, again = (simulate("--seed", "11").stdout for _ in range(2))

    assert once == again
    assert re.search(r"seed 11, digest [0-9a-f]{16}: everything holds\n$", once)


# --- a simulation that cannot find a bug proves nothing -------------------------------------------


def claim_without_a_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that lost its lease goes on writing."""
    monkeypatch.setattr(attempts, "fence_worker", lambda tx, worker_id: None)


def forget_what_was_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle whose commit was not heard of is written again as if it had not taken place."""

    async def find_nothing(self: Pump, load: object) -> outcomes.Found:
        return outcomes.Found(set(), set(), [])

    monkeypatch.setattr(Pump, "_look_for", find_nothing)


def wake_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run waits for comes, and the run is not told."""
    monkeypatch.setattr(waits, "release", lambda tx, happened: None)


def replay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints of earlier attempts are not read."""
    original: Callable[..., None] = Journal.__init__
    monkeypatch.setattr(Journal, "__init__", lambda self, rows, **options: original(self, (), **options))


def count_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrency limits look only at the agent."""
    monkeypatch.setattr(Headroom, "_has_room_for_key", lambda self, name, key: True)


@pytest.mark.parametrize(
    "plant", [claim_without_a_fence, forget_what_was_unheard, wake_nobody, replay_nothing, count_no_keys]
)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    assert any(World(seed).run().problem for seed in range(FINDING_SEEDS))


def test_taking_the_runs_of_live_workers_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However wrong the janitor is about who is gone, fences keep those who go on from writing."""
    reap_workers = attempts.reap_workers

    def reap_all(tx: Transaction, *, principal: str) -> list[attempts.AttemptKey]:
        for row in tx.fetch_all("list_workers", limit=100):
            tx.execute("expire_worker", id=row["id"])
        return reap_workers(tx, principal=principal)

    monkeypatch.setattr(attempts, "reap_workers", reap_all)

    assert not any(World(seed).run().problem for seed in range(FINDING_SEEDS // 4))
