"""A transaction on SQLite, and what SQLite's errors mean to whoever meets them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import orjson

from pilothouse.clock import Clock
from pilothouse.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from pilothouse.store.closings import Closings
from pilothouse.store.database import Row
from pilothouse.store.statements import SqlTexts, Statement, Statements

FREE_BYTES_NEEDED = 1 << 20

AS_ONE_VALUE = "rows_json"
"""The column of a hot statement that answers with all its rows in one value. Fetched one by one, each row would let go
of the interpreter and wait for its turn again."""

CHUNKS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement. Few sizes, so that each text is prepared once; 128 rows of the widest table stay far below
SQLite's limit of 32,766 parameters."""

_FULL = (StoreFull, "{doing} failed, the disk of {path} is full; free some space")
_CLOSED = (StoreUnavailable, "{doing} failed, {path} cannot be opened; may this user write to its folder?")
_BUSY = (StoreUnavailable, "{doing} failed, another process keeps {path} locked; end it if it hangs")
_MEANINGS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "{doing} failed, the disk of {path} has an error ({error}); check the disk",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnly,
        "{doing} failed, {path} is read-only here; may this user write to it, and does it run in a transaction?",
    ),
    sqlite3.SQLITE_CANTOPEN: _CLOSED,
    sqlite3.SQLITE_PERM: _CLOSED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_NOTADB: (StoreError, "{path} is not a SQLite database; give another path, or move the file away"),
    sqlite3.SQLITE_CORRUPT: (StoreError, "{path} is damaged ({error}); restore a backup"),
}


class SqliteTransaction(Closings):
    """A work's view of one connection. After a `failure` the work cannot succeed any more."""

    __slots__ = ("_clock", "_connection", "_path", "_statements", "failure")
    dialect = "sqlite"

    def __init__(
        self,
        connection: sqlite3.Connection,
        statements: Statements | SqlTexts,
        clock: Clock,
        path: Path,
    ) -> None:
        super().__init__()
        self._connection, self._statements, self._clock, self._path = connection, statements, clock, path
        self.failure: StoreError | None = None

    def fetch_all(self, statement: str, **parameters: object) -> list[Row]:
        found = self._statements[statement]
        found.check(parameters)
        if found.binds_now:
            parameters["now"] = self._clock.now_us()
        return self._fetch(found, parameters)

    def fetch_one(self, statement: str, **parameters: object) -> Row | None:
        rows = self.fetch_all(statement, **parameters)
        return rows[0] if rows else None

    def execute(self, statement: str, **parameters: object) -> int:
        found = self._statements[statement]
        found.check(parameters)
        if found.binds_now:
            parameters["now"] = self._clock.now_us()
        try:
            cursor = self._connection.execute(found.sql, parameters)
            cursor.fetchall()  # the count of a RETURNING statement is known at its end
        except sqlite3.Error as error:
            raise self._fail(found, error) from error
        return max(cursor.rowcount, 0)

    def send(self, statement: str, **parameters: object) -> None:
        self.execute(statement, **parameters)

    def fetch_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> list[Row]:
        found = self._statements[statement]
        return [row for texts, values in self._chunks(found, rows) for row in self._fetch(found, values, texts)]

    def send_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> None:
        found = self._statements[statement]
        try:
            for texts, values in self._chunks(found, rows):
                for text in texts:
                    self._connection.execute(text, values)
        except sqlite3.Error as error:
            raise self._fail(found, error) from error

    def _fetch(
        self, statement: Statement, values: Mapping[str, object] | Sequence[object], texts: Sequence[str] = ()
    ) -> list[Row]:
        """The rows of the first text; those after it only write."""
        first, *others = texts or (statement.sql,)
        try:
            cursor = self._connection.execute(first, values)
            rows = cursor.fetchall()
            for text in others:
                self._connection.execute(text, values)
        except sqlite3.Error as error:
            raise self._fail(statement, error) from error
        if not rows:
            return []
        names = [column[0] for column in cursor.description]
        if names == [AS_ONE_VALUE]:
            answer: list[Row] = orjson.loads(rows[0][0])
            return answer
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _chunks(
        self, statement: Statement, rows: Sequence[Mapping[str, object]]
    ) -> Iterator[tuple[Sequence[str], list[object]]]:
        """The statement's texts and values for as many rows at once as possible: each call lets other threads run."""
        statement.check_rows(rows)
        now = [self._clock.now_us()] if statement.binds_now else []
        if len(rows) == 1:
            yield statement.with_rows(1), [*now, *statement.values_of(rows[0])]
            return
        tuples = list(map(statement.values_of, rows))
        start = 0
        for size in CHUNKS:
            while (left := len(tuples) - start) >= size:
                yield statement.with_rows(size), [*now, *chain.from_iterable(tuples[start : start + size])]
                start += size
            if left == 0:
                break

    def _fail(self, statement: Statement, error: sqlite3.Error) -> StoreError:
        explained = explain(error, f"statement {statement.name[:100]!r}", self._path)
        self.failure = self.failure or explained
        return explained


def explain(error: sqlite3.Error, doing: str, path: Path) -> StoreError:
    """The error of our tree for SQLite's, with what to do next."""
    code = result_code(error)
    kind, message = _MEANINGS.get(code, (StoreError, "{doing} failed: {error}"))
    if code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free < FREE_BYTES_NEEDED:
        kind, message = _FULL
    return kind(message.format(doing=doing, path=path, error=error))


def result_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
