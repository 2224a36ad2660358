"""The floor: the raw driver writes the rows of a run's life in batches, with the same durability, and nothing else."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilothouse.clock import new_id
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate

Rows = Sequence[tuple[object, ...]]

RUN_COLUMNS = (
    "id, tenant, agent, lane, priority, state, available_at, max_attempts, max_losses, input, root_id, created_at"
)
AUDIT_COLUMNS = "at, tenant, principal, action, entity, entity_id, after, attempt"
CHECKPOINT_COLUMNS = "run_id, key, attempt, kind, request_hash, request, state, result, tries, started_at, finished_at"


@dataclass(frozen=True, slots=True)
class Least:
    """The least statement that writes many rows: bound row by row on SQLite, with arrays on PostgreSQL."""

    sqlite: str
    postgres: str


RUN = Least(
    f"INSERT INTO runs ({RUN_COLUMNS}) VALUES (?1, 'default', 'noop', 'normal', 0, 'queued', ?2, 3, 5, '{{}}', ?1, ?2)",
    f"INSERT INTO runs ({RUN_COLUMNS}) SELECT id, 'default', 'noop', 'normal', 0, 'queued', at, 3, 5, '{{}}', id, at"
    " FROM unnest(%s::text[], %s::bigint[]) AS item(id, at)",
)
CLAIM = Least(
    "UPDATE runs SET state = 'running', available_at = NULL, attempt = 1, started_at = ?2 WHERE id = ?1",
    "UPDATE runs SET state = 'running', available_at = NULL, attempt = 1, started_at = at"
    " FROM unnest(%s::text[], %s::bigint[]) AS item(id, at) WHERE runs.id = item.id",
)
ATTEMPT = Least(
    "INSERT INTO attempts (run_id, number, worker_id, state, started_at) VALUES (?1, 1, 'w', 'running', ?2)",
    "INSERT INTO attempts (run_id, number, worker_id, state, started_at) SELECT id, 1, 'w', 'running', at"
    " FROM unnest(%s::text[], %s::bigint[]) AS item(id, at)",
)
SETTLE = Least(
    "UPDATE runs SET state = 'succeeded', output = 'null', finished_at = ?2 WHERE id = ?1 AND attempt = 1",
    "UPDATE runs SET state = 'succeeded', output = 'null', finished_at = at"
    " FROM unnest(%s::text[], %s::bigint[]) AS item(id, at) WHERE runs.id = item.id AND attempt = 1",
)
FINISH = Least(
    "UPDATE attempts SET state = 'succeeded', finished_at = ?2 WHERE run_id = ?1 AND number = 1",
    "UPDATE attempts SET state = 'succeeded', finished_at = at"
    " FROM unnest(%s::text[], %s::bigint[]) AS item(id, at) WHERE run_id = item.id AND number = 1",
)
CHECKPOINT = Least(
    f"INSERT INTO checkpoints ({CHECKPOINT_COLUMNS}) VALUES (?1, ?2, 1, 'step', 'h', 'r', 'succeeded', '1', 1, 1, 1)",
    f"INSERT INTO checkpoints ({CHECKPOINT_COLUMNS})"
    " SELECT id, key, 1, 'step', 'h', 'r', 'succeeded', '1', 1, 1, 1"
    " FROM unnest(%s::text[], %s::text[]) AS item(id, key)",
)
AUDIT = Least(
    f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES (1, 'default', 'w', ?2, 'run', ?1, 'x', 1)",
    f"INSERT INTO audit ({AUDIT_COLUMNS}) SELECT 1, 'default', 'w', action, 'run', id, 'x', 1"
    " FROM unnest(%s::text[], %s::text[]) AS item(id, action)",
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
            self._many: Callable[[Least, Rows], object] = lambda least, rows: connection.executemany(least.sqlite, rows)
            self.say: Callable[[str], object] = connection.execute
            return
        import psycopg

        cursor = psycopg.connect(url, autocommit=True).cursor()
        self._many = lambda least, rows: cursor.execute(least.postgres.encode(), _columns(rows))
        self.say = lambda sql: cursor.execute(sql.encode())

    def commit(self, batches: Sequence[tuple[Least, Rows]]) -> None:
        self.say("BEGIN")
        for least, rows in batches:
            self._many(least, rows)
        self.say("COMMIT")

    def submit(self, ids: Sequence[str]) -> None:
        self.commit([(RUN, _with(ids, NOW)), (AUDIT, _with(ids, "run.submitted"))])

    def claim(self, ids: Sequence[str]) -> None:
        marks = _with(ids, NOW)
        self.commit([(CLAIM, marks), (ATTEMPT, marks), (AUDIT, _with(ids, "run.claimed"))])

    def settle(self, ids: Sequence[str]) -> None:
        marks = _with(ids, NOW)
        self.commit([(SETTLE, marks), (FINISH, marks), (AUDIT, _with(ids, "run.succeeded"))])

    def checkpoint(self, ids: Sequence[str], key: str) -> None:
        self.commit([(CHECKPOINT, _with(ids, key))])


def _with(ids: Sequence[str], value: object) -> Rows:
    return [(id, value) for id in ids]


def _columns(rows: Rows) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def fill(url: str, count: int, *, agent: str) -> None:
    """Queues runs."""
    floor = Floor(url)
    for _ in range(0, count, 500):
        floor.submit([new_id() for _ in range(500)])
    floor.say(f"UPDATE runs SET agent = '{agent}'")


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
