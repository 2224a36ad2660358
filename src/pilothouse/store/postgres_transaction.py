"""A transaction on PostgreSQL from its first statement to its commit. Knows its own number (xid) before it commits, so
that the outcome can be found out when the connection breaks while COMMIT is on its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import pq

from pilothouse.clock import Clock
from pilothouse.errors import StoreError
from pilothouse.store.closings import Closings
from pilothouse.store.database import Row
from pilothouse.store.postgres_connection import Connection, ConnectionLost, Expected, control
from pilothouse.store.statements import SqlTexts, Statement, Statements

BEGIN = control("begin", "BEGIN ISOLATION LEVEL READ COMMITTED")
BEGIN_READ = control("begin_read", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
COMMIT = control("commit", "COMMIT")
OWN_XID = control("own_xid", "SELECT pg_current_xact_id_if_assigned()::text AS xid")


class CommitUnknown(Exception):
    """The connection broke while COMMIT was on its way."""

    def __init__(self, xid: str) -> None:
        super().__init__(xid)
        self.xid = xid


class PostgresTransaction(Closings):
    """A work's view of one connection. After a `failure` the work cannot succeed any more."""

    __slots__ = ("_clock", "_connection", "_has_begun", "_is_read", "_statements", "_xid", "failure")
    dialect = "postgres"

    def __init__(
        self, connection: Connection, statements: Statements | SqlTexts, clock: Clock, *, is_read: bool
    ) -> None:
        super().__init__()
        self._connection, self._statements, self._clock, self._is_read = connection, statements, clock, is_read
        self._has_begun = False
        self._xid: str | None = None
        self.failure: StoreError | None = None

    def fetch_all(self, statement: str, **parameters: object) -> list[Row]:
        return self._rows(self._queue(statement, parameters))

    def fetch_one(self, statement: str, **parameters: object) -> Row | None:
        rows = self._rows(self._queue(statement, parameters))
        return rows[0] if rows else None

    def execute(self, statement: str, **parameters: object) -> int:
        result = self._receive(self._queue(statement, parameters))
        return result.command_tuples or 0

    def send(self, statement: str, **parameters: object) -> None:
        self._queue(statement, parameters)

    def fetch_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> list[Row]:
        expected = self._queue_rows(statement, rows)
        return self._rows(expected) if expected else []

    def send_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> None:
        self._queue_rows(statement, rows)

    def commit(self) -> None:
        """Raises CommitUnknown when the answer to COMMIT did not come. What has written nothing needs no answer."""
        if not self._has_begun:
            return
        if self._is_read:
            self._end_read()
            return
        if self._xid is None and self._connection.is_waiting:
            self._learn_xid()
        commit = self._connection.queue(COMMIT)
        sync = self._connection.queue_sync()
        try:
            self._connection.receive(sync)
        except ConnectionLost as error:
            if not _is_done(commit) and self._xid is not None:
                raise CommitUnknown(self._xid) from error
        if commit.result and commit.result.command_status == b"ROLLBACK":
            raise StoreError("PostgreSQL rolled the transaction back instead of committing it")

    def roll_back(self) -> None:
        if self._has_begun:
            self._connection.roll_back()

    def _end_read(self) -> None:
        """Nothing depends on the answer, so nobody waits for it."""
        if self._connection.is_waiting:
            self._learn_xid()
        self._connection.queue(COMMIT)
        self._connection.queue_sync()
        self._connection.flush()

    def _queue(self, name: str, parameters: dict[str, object]) -> Expected:
        statement = self._statements[name]
        statement.check(parameters)
        if statement.binds_now:
            parameters["now"] = self._clock.now_us()
        return self._send(statement, [parameters[each] for each in statement.bound])

    def _queue_rows(self, name: str, rows: Sequence[Mapping[str, object]]) -> Expected | None:
        statement = self._statements[name]
        statement.check_rows(rows)
        if not rows:
            return None
        now = self._clock.now_us()
        return self._send(
            statement, [now if each == "now" else [row[each] for row in rows] for each in statement.bound]
        )

    def _send(self, statement: Statement, values: list[object]) -> Expected:
        try:
            if not self._has_begun:
                self._connection.settle()
                self._has_begun = True
                self._connection.queue(BEGIN_READ if self._is_read else BEGIN)
            return self._connection.queue(statement, values)
        except StoreError as error:
            self.failure = self.failure or error
            raise

    def _receive(self, expected: Expected) -> pq.abc.PGresult:
        if self._is_read or self._xid is not None:
            return self._wait(expected)
        self._learn_xid()
        assert expected.result is not None, "results come in the order of the statements"
        return expected.result

    def _learn_xid(self) -> None:
        """Wait for everything sent so far. The server numbers a transaction at its first write."""
        xid = self._wait(self._connection.queue(OWN_XID)).get_value(0, 0)
        self._xid = xid.decode() if xid else None

    def _wait(self, expected: Expected) -> pq.abc.PGresult:
        try:
            return self._connection.receive(expected)
        except StoreError as error:
            self.failure = self.failure or error
            raise

    def _rows(self, expected: Expected) -> list[Row]:
        return self._connection.rows(self._receive(expected))


def _is_done(expected: Expected) -> bool:
    return expected.result is not None and expected.result.status == pq.ExecStatus.COMMAND_OK
