"""A transaction whose outcome is unknown: what is there of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse.control import blobs
from pilothouse.control.attempts import AttemptKey, Checkpoint, ClaimedRun, Settlement, claimed_run
from pilothouse.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Found:
    """What is found of a transaction whose outcome is unknown. `held`: every run that its worker holds."""

    stored: set[tuple[str, str]]
    ended: set[AttemptKey]
    held: list[ClaimedRun]


def find_written(
    tx: Transaction, worker_id: str, checkpoints: Sequence[Checkpoint], settlements: Sequence[Settlement]
) -> Found:
    """Which of the checkpoints, as (run id, key), and which of the settlements this worker's attempts have written."""
    keys = [{"run_id": c.run_id, "key": c.key, "attempt": c.attempt} for c in checkpoints]
    numbers = [{"run_id": s.run_id, "number": s.attempt} for s in settlements]
    held = tx.fetch_all("held_runs", worker_id=worker_id)
    return Found(
        stored={(row["run_id"], row["key"]) for row in tx.fetch_many("own_checkpoints", keys)},
        ended={(row["run_id"], row["number"]) for row in tx.fetch_many("ended_attempts", numbers)},
        held=[claimed_run(row) for row in blobs.unpack(tx, held, "input")],
    )
