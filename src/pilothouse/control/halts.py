"""Halts: runs that the engine has stopped until a person says how they go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pilothouse import payloads
from pilothouse.control import audit, runs
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Transaction

HALTED = ".halted"
"""What the engine adds to a signal's name for the step that holds why it is waited for."""

RUNAWAY_KIND = "runaway"
"""The kind of such a step where the run may have run away."""


class Halt(Protocol):
    """A step that says why its run was halted."""

    @property
    def run_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def result(self) -> str | None: ...


def record_runaways(tx: Transaction, written: Iterable[Halt]) -> None:
    """Notes in the audit which of the written steps say that their run may have run away."""
    for halt in written:
        if halt.kind != RUNAWAY_KIND or halt.result is None:
            continue
        entry = audit.entry(
            "run.runaway_suspected",
            "run",
            halt.run_id,
            principal=f"run:{halt.run_id}",
            tenant=runs.run_in(tx, halt.run_id)["tenant"],
            before=RunState.RUNNING,
            after=RunState.RUNNING,
            reason=str(payloads.decode(halt.result)["reason"]),
            attempt=halt.attempt,
        )
        audit.record(tx, [entry])
