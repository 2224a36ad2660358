"""One PostgreSQL connection in pipeline mode. Statements queue up and go out with one flush when a result is wanted, so
that only a wanted result costs a round trip. Sits on libpq itself (`psycopg.pq`), because psycopg's cursors take three
times as much of the processor per transaction and forget the prepared statements at each rollback.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Buffer, Transformer

from pilothouse.errors import SchemaError, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from pilothouse.store.database import Row
from pilothouse.store.postgres_values import encode, register_loaders
from pilothouse.store.statements import Statement

OLDEST_SERVER = 15
MAX_PREPARED = 1000

_FATAL, _ABORTED = pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED
_CLOSING_STATES = ("57P01", "57P02", "57P03", "57P05", "25P03")
_PreparedKey: TypeAlias = tuple[str, tuple[int, ...]]


class ConnectionLost(StoreUnavailable):
    """The connection broke. Nothing of its transaction was committed, unless COMMIT was on its way."""


class Collided(StoreError):
    """The server made this transaction the victim of a deadlock or of a serialization failure."""


class Expected:
    """A message on its way whose result has not come yet. `key` belongs to the preparation of a statement."""

    __slots__ = ("key", "result", "statement")

    def __init__(self, statement: Statement | None, key: _PreparedKey | None = None) -> None:
        self.statement, self.key = statement, key
        self.result: pq.abc.PGresult | None = None


def control(name: str, sql: str) -> Statement:
    """A statement of the driver's own, without parameters."""
    return Statement(name, sql, frozenset(), frozenset(), (), False, lambda _: ())


ROLLBACK = control("rollback", "ROLLBACK")


class Connection:
    """Opened on construction. Every method raises ConnectionLost, Collided or another StoreError when it learns of one.

    `prepares` is False behind a pooler, where the next transaction may meet another server process.
    """

    def __init__(self, parameters: Mapping[str, Any], location: str, *, prepares: bool) -> None:
        self._location, self._prepares = location, prepares
        self._psycopg = connect(parameters, location)
        register_loaders(self._psycopg)
        self._pg = self._psycopg.pgconn
        self._transformer = Transformer(self._psycopg)
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)
        self._prepared: dict[_PreparedKey, bytes] = {}
        self._numbers = count()
        self._expected: deque[Expected] = deque()
        self._failure: StoreError | None = None
        self._pg.enter_pipeline_mode()

    def close(self) -> None:
        self._psycopg.close()

    @property
    def is_waiting(self) -> bool:
        """Whether results are still to come."""
        return bool(self._expected)

    def queue(self, statement: Statement, values: Sequence[object] = ()) -> Expected:
        """Add the statement to what goes out with the next flush."""
        encoded = [encode(value) for value in values]
        try:
            self._send(statement, [data for data, _ in encoded], tuple([oid for _, oid in encoded]))
        except psycopg.OperationalError as error:
            raise self._lost(error) from error
        expected = Expected(statement)
        self._expected.append(expected)
        return expected

    def queue_sync(self) -> Expected:
        """Add the end of a section: after a failure the server skips everything up to it."""
        try:
            self._pg.pipeline_sync()
        except psycopg.OperationalError as error:
            raise self._lost(error) from error
        expected = Expected(None)
        self._expected.append(expected)
        return expected

    def flush(self, *, at_once: bool = False) -> None:
        """Send what is queued; `at_once` asks the server to answer before the end of the section."""
        try:
            if at_once:
                self._pg.send_flush_request()
            while self._pg.flush():
                self._wait_until_writable()
        except psycopg.OperationalError as error:
            raise self._lost(error) from error

    def receive(self, wanted: Expected) -> pq.abc.PGresult:
        """Send what is queued and wait for the result. Raises the first failure since `settle`."""
        self.flush(at_once=wanted.statement is not None)
        while wanted.result is None:
            self._receive_next()
        if self._failure is not None:
            raise self._failure
        return wanted.result

    def rows(self, result: pq.abc.PGresult) -> list[Row]:
        if not result.ntuples:
            return []
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, lambda values: dict(zip(names, values, strict=True)))

    def roll_back(self) -> None:
        """Does not wait: whoever uses the connection next reads the results in `settle`."""
        self.queue_sync()
        self.queue(ROLLBACK)
        self.queue_sync()
        self.flush()

    def settle(self) -> None:
        """Read the results that the transaction before has left, and forget its failure."""
        if self._expected:
            self.flush()
            while self._expected:
                self._receive_next()
        self._failure = None

    def _send(self, statement: Statement, data: list[Buffer | None], oids: tuple[int, ...]) -> None:
        key = (statement.sql, oids)
        name = self._prepared.get(key)
        if name is None and self._prepares and len(self._prepared) < MAX_PREPARED:
            name = self._prepared[key] = b"ph%d" % next(self._numbers)
            self._pg.send_prepare(name, statement.sql.encode(), oids)
            self._expected.append(Expected(statement, key))
        if name is None:
            self._pg.send_query_params(statement.sql.encode(), data, oids)
        else:
            self._pg.send_query_prepared(name, data)

    def _receive_next(self) -> None:
        expected = self._expected[0]
        result = self._next_result()
        if result is None:
            raise self._lost(None)
        if expected.statement is not None:
            self._next_result()  # the None that ends the results of a statement
        self._expected.popleft()
        expected.result = result
        if result.status in (_FATAL, _ABORTED):
            self._note_failure(expected, result)

    def _next_result(self) -> pq.abc.PGresult | None:
        try:
            while self._pg.is_busy():
                self._poll.poll()
                self._pg.consume_input()
            return self._pg.get_result()
        except psycopg.OperationalError as error:
            raise self._lost(error) from error

    def _wait_until_writable(self) -> None:
        """The server may first want us to read results, before it takes more."""
        self._poll.modify(self._pg.socket, select.POLLIN | select.POLLOUT)
        ready = self._poll.poll()
        self._poll.modify(self._pg.socket, select.POLLIN)
        if ready[0][1] & ~select.POLLOUT:
            self._pg.consume_input()

    def _note_failure(self, expected: Expected, result: pq.abc.PGresult) -> None:
        if expected.key is not None:
            self._prepared.pop(expected.key, None)
        if self._failure is None and result.status == _FATAL:
            error = errors.error_from_result(result)
            self._failure = self._explain(f"statement {_name(expected)!r}", error)
            self._failure.__cause__ = error
        if isinstance(self._failure, ConnectionLost):
            raise self._failure

    def _explain(self, doing: str, error: psycopg.Error) -> StoreError:
        """The error of our tree for the server's, with what to do next."""
        state, message = error.sqlstate or "", error.diag.message_primary or _first_line(error)
        match state:
            case "40001" | "40P01":
                return Collided(f"{doing} collided with another transaction: {message}")
            case "53100":
                return StoreFull(f"{doing} failed, the disk of PostgreSQL at {self._location} is full; free some space")
            case "25006":
                return StoreReadOnly(
                    f"{doing} writes, but PostgreSQL at {self._location} is read-only here ({message}); "
                    "use the primary server, and write in a transaction, not in a read"
                )
            case "0A000" if "cached plan" in message:  # a migration changed the table: a new connection prepares anew
                return self._lost(error)
            case "26000" | "42P05":
                return StoreError(
                    f"{doing} failed ({message}); behind a pooler add ?pgbouncer=true to the database URL"
                )
        if not state or state.startswith("08") or state in _CLOSING_STATES:
            return self._lost(error)
        return StoreError(f"{doing} failed: {message}")

    def _lost(self, error: psycopg.Error | None) -> ConnectionLost:
        why = f": {_first_line(error)}" if error else ""
        return ConnectionLost(f"the connection to PostgreSQL at {self._location} broke{why}")


def connect(parameters: Mapping[str, Any], location: str) -> psycopg.Connection[Any]:
    """A plain connection, with autocommit. Raises StoreUnavailable or, for a server that is too old, SchemaError."""
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(
            f"cannot reach PostgreSQL at {location} ({_first_line(error)}); is it running, and is the URL right?"
        ) from error
    try:
        require_version(connection.info.server_version, location)
    except SchemaError:
        connection.close()
        raise
    return connection


def require_version(version: int, location: str) -> None:
    """`version` as the server reports it: 150004 is 15.4."""
    major, minor = divmod(version, 10_000)
    if major < OLDEST_SERVER:
        raise SchemaError(
            f"PostgreSQL {OLDEST_SERVER} or later is needed; this is {major}.{minor} at {location}; upgrade the server"
        )


def _name(expected: Expected) -> str:
    return expected.statement.name[:100] if expected.statement else "sync"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
