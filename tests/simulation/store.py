"""The database of a simulated world: a real SQLite in memory that one transaction at a time runs on."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pilothouse.store.calls import Answer, run_work
from pilothouse.store.database import T, Work, open_database
from pilothouse.store.migrations import migrate
from pilothouse.store.sqlite_transaction import SqliteTransaction
from pilothouse.store.statements import Statements, load_statements
from tests.simulation.loop import EPOCH_US

GUARDS = """
CREATE TEMP TABLE changes (run_id TEXT);
CREATE TEMP TRIGGER see_run AFTER UPDATE OF state, attempt ON main.runs BEGIN
    INSERT INTO changes VALUES (NEW.id);
END;
CREATE TEMP TRIGGER no_step_twice BEFORE UPDATE ON main.checkpoints
WHEN OLD.state = 'succeeded' AND (NEW.result IS NOT OLD.result OR NEW.state <> OLD.state) BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: a finished step was written again');
END;
CREATE TEMP TRIGGER no_foreign_checkpoint BEFORE INSERT ON main.checkpoints
WHEN NOT EXISTS (SELECT 1 FROM main.runs WHERE id = NEW.run_id AND state = 'running' AND attempt = NEW.attempt) BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: a checkpoint by an attempt that does not hold its run');
END;
CREATE TEMP TRIGGER no_second_settlement BEFORE UPDATE OF state ON main.attempts
WHEN OLD.state <> 'running' BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: an attempt was settled twice');
END;
CREATE TEMP TRIGGER no_claim_of_what_runs BEFORE INSERT ON main.attempts
WHEN EXISTS (SELECT 1 FROM main.attempts WHERE run_id = NEW.run_id AND state = 'running') BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: a run was claimed while an attempt of it runs');
END;
CREATE TEMP TRIGGER no_limit_passed AFTER INSERT ON main.attempts
WHEN EXISTS (
    SELECT 1 FROM main.runs AS mine JOIN main.runs AS other ON other.agent = mine.agent AND other.state = 'running'
    WHERE mine.id = NEW.run_id AND mine.agent = 'narrow' GROUP BY mine.id
    HAVING count(*) > 2 OR sum(other.concurrency_key = mine.concurrency_key) > 1
) BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: a concurrency limit was passed');
END;
CREATE TEMP TRIGGER no_change_of_the_audit BEFORE UPDATE ON main.audit BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: an audit record was changed');
END;
CREATE TEMP TRIGGER no_hole_in_the_audit BEFORE DELETE ON main.audit BEGIN
    SELECT RAISE(ABORT, 'VIOLATION: an audit record was deleted');
END;
"""
"""What no statement may do, whatever the transaction as a whole looks like in the end."""


class WorldClock:
    """The clock of the machine: the virtual time, put forward or back by `jump`. Durations do not jump."""

    frozen = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._offset_us = 0

    def now_us(self) -> int:
        return EPOCH_US + self._offset_us + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()

    def jump(self, seconds: float) -> None:
        self._offset_us += round(seconds * 1_000_000)


class Store:
    """Runs works; `on_commit` gets the ids of the runs that a commit has changed, `on_violation` what a guard said."""

    def __init__(
        self, clock: WorldClock, on_commit: Callable[[set[str]], None], on_violation: Callable[[str], None]
    ) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        _template().backup(self._connection)
        self._connection.executescript(GUARDS)
        self._clock = clock
        self._on_commit = on_commit
        self._on_violation = on_violation

    def close(self) -> None:
        self._connection.close()

    def commit(self, work: Work[T]) -> T:
        """The work, durable. Raises what it raises, undone."""
        return self._run(work, "COMMIT")

    def rehearse(self, work: Work[T]) -> None:
        """The work, undone, as before a deadlock."""
        self._run(work, "ROLLBACK")

    def read(self, work: Work[T]) -> T:
        transaction = SqliteTransaction(self._connection, _statements(), self._clock, Path("simulated"))
        answer = run_work(work, transaction)
        return _opened(answer, transaction)

    def open_runs(self) -> list[str]:
        """The runs that have not ended, as people would name them."""
        rows = self._connection.execute(
            "SELECT id, agent, state FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled') ORDER BY id"
        )
        return [f"{id} ({agent}, {state})" for id, agent, state in rows]

    def _run(self, work: Work[T], ending: str) -> T:
        self._connection.execute("BEGIN")
        transaction = SqliteTransaction(self._connection, _statements(), self._clock, Path("simulated"))
        answer = run_work(work, transaction)
        if "VIOLATION" in str(transaction.failure):
            self._on_violation(str(transaction.failure))
        is_failed = answer.error is not None or transaction.failure is not None
        changed = {row[0] for row in self._connection.execute("DELETE FROM changes RETURNING run_id")}
        self._connection.execute("ROLLBACK" if is_failed else ending)
        if ending == "COMMIT" and not is_failed:
            self._on_commit(changed)
        return _opened(answer, transaction)


def _opened(answer: Answer, transaction: SqliteTransaction) -> T:  # type: ignore[type-var]  # the answer is untyped
    error = answer.error or transaction.failure
    if error is not None:
        raise error
    value: T = answer.value
    return value


@cache
def _statements() -> Statements:
    return load_statements("sqlite", bind_now=True)


@cache
def _template() -> sqlite3.Connection:
    """A migrated, empty database."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-simulation-") as folder:
        path = Path(folder) / "template.db"
        db = open_database(f"sqlite:///{path}")
        db.start()
        migrate(db)
        db.close()
        template = sqlite3.connect(":memory:", isolation_level=None)
        on_disk = sqlite3.connect(path)
        on_disk.backup(template)
        on_disk.close()
    return template
