"""The floor: the raw driver writes the rows of a run's life in batches, with the same durability, and nothing else."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pilothouse.clock import new_id
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate

Rows = Sequence[tuple[object, ...]]

RUN = (
    "INSERT INTO runs (id, tenant, agent, lane, priority, state, available_at, max_attempts, max_losses, input,"
    " root_id, created_at) VALUES ({0}, 'default', 'noop', 'normal', 0, 'queued', {0}, 3, 5, '{{}}', {0}, {0})"
)
CLAIM = "UPDATE runs SET state = 'running', available_at = NULL, attempt = 1, started_at = {0} WHERE id = {0}"
ATTEMPT = "INSERT INTO attempts (run_id, number, worker_id, state, started_at) VALUES ({0}, 1, 'w', 'running', {0})"
SETTLE = "UPDATE runs SET state = 'succeeded', output = 'null', finished_at = {0} WHERE id = {0} AND attempt = 1"
FINISH = "UPDATE attempts SET state = 'succeeded', finished_at = {0} WHERE run_id = {0} AND number = 1"
CHECKPOINT = (
    "INSERT INTO checkpoints (run_id, key, attempt, kind, request_hash, request, state, result, tries, started_at,"
    " finished_at) VALUES ({0}, {0}, 1, 'step', 'h', 'r', 'succeeded', '1', 1, {0}, {0})"
)
AUDIT = (
    "INSERT INTO audit (at, tenant, principal, action, entity, entity_id, after, attempt)"
    " VALUES ({0}, 'default', 'w', {0}, 'run', {0}, 'x', 1)"
)
NOW = 1


class Floor:
    """Raw writes on one connection, a commit per batch."""

    def __init__(self, url: str) -> None:
        db = open_database(url)
        db.start()
        migrate(db)
        db.close()
        self._is_sqlite = url.startswith("sqlite")
        self._connect(url)

    def _connect(self, url: str) -> None:
        if self._is_sqlite:
            connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            self._mark = "?"
            self._many: Callable[[str, Rows], object] = connection.executemany
            self._say: Callable[[str], object] = connection.execute
            return
        import psycopg

        opened = psycopg.connect(url, autocommit=True)
        cursor = opened.cursor()
        self._mark = "%s"
        self._many = cursor.executemany
        self._say = lambda sql: cursor.execute(sql.encode())

    def commit(self, batches: Sequence[tuple[str, Rows]]) -> None:
        self._say("BEGIN")
        for sql, rows in batches:
            self._many(sql.format(self._mark), rows)
        self._say("COMMIT")

    def submit(self, ids: Sequence[str]) -> None:
        runs = [(id, NOW, id, NOW) for id in ids]
        self.commit([(RUN, runs), (AUDIT, [(NOW, "run.submitted", id) for id in ids])])

    def claim(self, ids: Sequence[str]) -> None:
        marks = [(NOW, id) for id in ids]
        audit = [(NOW, "run.claimed", id) for id in ids]
        self.commit([(CLAIM, marks), (ATTEMPT, [(id, NOW) for id in ids]), (AUDIT, audit)])

    def settle(self, ids: Sequence[str]) -> None:
        marks = [(NOW, id) for id in ids]
        self.commit([(SETTLE, marks), (FINISH, marks), (AUDIT, [(NOW, "run.succeeded", id) for id in ids])])

    def checkpoint(self, ids: Sequence[str], key: str) -> None:
        self.commit([(CHECKPOINT, [(id, key, NOW, NOW) for id in ids])])


def submit_rate(url: str, count: int, batch: int) -> float:
    """Runs submitted per second, in batches."""
    floor, ids = Floor(url), [new_id() for _ in range(count)]
    started = time.perf_counter()
    for start in range(0, count, batch):
        floor.submit(ids[start : start + batch])
    return count / (time.perf_counter() - started)


def drain_rates(url: str, count: int, batch: int, steps: int) -> tuple[float, float]:
    """Runs drained and checkpoints written per second, `batch` runs side by side."""
    floor, ids = Floor(url), [new_id() for _ in range(count)]
    for start in range(0, count, 500):
        floor.submit(ids[start : start + 500])
    started = time.perf_counter()
    for start in range(0, count, batch):
        part = ids[start : start + batch]
        floor.claim(part)
        for step in range(steps):
            floor.checkpoint(part, f"step-{step}")
        floor.settle(part)
    elapsed = time.perf_counter() - started
    return count / elapsed, count * steps / elapsed
