"""What waiting runs wait for, and who wakes them: a signal, the end of a child, a decision, the reset of a switch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pilothouse.domain.runs import TERMINAL
from pilothouse.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing a run waits for. The run wakes when everything of one group has happened."""

    kind: Literal["signal", "child", "limit", "approval", "switch"]
    name: str
    group: str


def lock_runs(tx: Transaction, ids: Iterable[str]) -> None:
    """Locks runs that one transaction changes together, before it changes any of them."""
    rows = [{"id": id} for id in sorted(set(ids))]
    if rows:
        tx.send_many("lock_runs", rows)


def lock_switches(tx: Transaction, waits: Iterable[Wait]) -> None:
    """Lets no switch be tripped or reset while a run goes to sleep on one; before any run is locked."""
    if any(wait.kind == "switch" for wait in waits):
        tx.fetch_one("hold_switch_epoch")


def add_waits(tx: Transaction, run_id: str, attempt: int, waits: Sequence[Wait]) -> None:
    """Records what a run that was just suspended waits for, and wakes it if that has happened meanwhile.

    The run's row is locked by the caller, and whoever wakes it takes it too, so nothing can happen in between unseen.
    """
    if not waits:
        return
    rows = [
        {"run_id": run_id, "attempt": attempt, "kind": wait.kind, "name": wait.name, "wait_group": wait.group}
        for wait in waits
    ]
    tx.send_many("insert_waits", rows)
    _wake(tx, ((run_id, wait.group) for wait in waits))


def release(tx: Transaction, happened: Sequence[Row]) -> None:
    """Takes what has happened (rows of run_id, kind, name) out of the waits, and wakes who waits for nothing more."""
    freed = tx.fetch_many("release_waits", happened)
    wake(tx, freed)


def release_parents(tx: Transaction, ended: Sequence[Row]) -> None:
    """Tells the parents of runs that have ended. The parents' rows are locked by the caller or here, in one order."""
    children = [row for row in ended if row["parent_id"] and row["state"] in TERMINAL]
    if children:
        lock_runs(tx, [row["parent_id"] for row in children])
        release(tx, [{"run_id": row["parent_id"], "kind": "child", "name": row["id"]} for row in children])


def wake(tx: Transaction, freed: Iterable[Row]) -> None:
    """Wakes who waits for nothing more; `freed` are waits (rows of run_id, wait_group) that were just deleted."""
    _wake(tx, ((row["run_id"], row["wait_group"]) for row in freed))


def _wake(tx: Transaction, groups: Iterable[tuple[str, str]]) -> None:
    rows = [{"run_id": run_id, "wait_group": group} for run_id, group in sorted(set(groups))]
    if rows:
        tx.send_many("wake_unblocked", rows)
