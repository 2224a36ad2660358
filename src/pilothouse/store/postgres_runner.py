"""Runs one call after the other on a connection of its own: again after a deadlock or a lost connection, never again
after a commit, even if the news of it was lost.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from pilothouse.clock import Clock, SystemClock
from pilothouse.errors import OutcomeUnknown, StoreError, StoreUnavailable
from pilothouse.store.calls import Answer, Call, run_work
from pilothouse.store.postgres_connection import Collided, Connection, ConnectionLost, Expected, control
from pilothouse.store.postgres_transaction import CommitUnknown, PostgresTransaction
from pilothouse.store.statements import SqlTexts, Statements

MAX_COLLISIONS = 10
MAX_LOSSES = 5
OUTAGE_SECONDS = 2.0
RECENT_SECONDS = 0.5
OUTCOME_SECONDS = 10.0
PATIENCE_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.02, 0.5
FUTURE_XID = "22023"
SERVER_START = control("server_start", "SELECT pg_postmaster_start_time()::text AS start")
IDLE_LIMIT = control("idle_limit", "SET idle_in_transaction_session_timeout = '30s'")

_log = logging.getLogger(__name__)
_time = SystemClock()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect. `location` is host, port and database, fit to be shown."""

    parameters: Mapping[str, Any]
    location: str
    is_pooled: bool


class Outage:
    """What the runners of one database share about a server that cannot be reached, so that not each waits in vain."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._last = 0.0
        self._message = ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise StoreUnavailable at once while a long outage was confirmed just now."""
        with self._lock:
            if self._is_long() and _time.monotonic() - self._last < RECENT_SECONDS:
                raise StoreUnavailable(self._message)

    def note(self, error: StoreUnavailable) -> bool:
        """Remember a failure. Returns whether the outage is long enough to give up."""
        with self._lock:
            self._last, self._message = _time.monotonic(), str(error)
            self._since = self._since or self._last
            return self._is_long()

    def end(self) -> None:
        self._since = None

    def _is_long(self) -> bool:
        return self._since is not None and _time.monotonic() - self._since >= OUTAGE_SECONDS


class Runner:
    """Not safe for two threads at once."""

    def __init__(
        self, target: Target, outage: Outage, *, statements: Statements, texts: SqlTexts, clock: Clock
    ) -> None:
        self._target, self._outage = target, outage
        self._statements, self._texts, self._clock = statements, texts, clock
        self._connection: Connection | None = None
        self._server: Expected | None = None

    def connect(self) -> Connection:
        """The connection, opened if need be. Raises StoreUnavailable when the server stays away for some seconds."""
        if self._connection is not None:
            return self._connection
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._outage.check()
            try:
                self._connection = self._open()
            except StoreUnavailable as error:
                if self._outage.note(error):
                    raise
            else:
                self._outage.end()
                return self._connection
            time.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_SECONDS)

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, call: Call, *, is_read: bool) -> Answer:
        """Whatever happens becomes the answer."""
        try:
            return self._run_until_settled(call, is_read)
        except StoreError as error:
            return Answer(None, error)
        except Exception as error:  # noqa: BLE001 - top of a thread's loop, which outlives any failure
            _log.exception("a transaction failed in the driver")
            self.disconnect()
            return Answer(None, StoreError(f"the transaction failed: {error!r}"))

    def _run_until_settled(self, call: Call, is_read: bool) -> Answer:
        collisions = losses = 0
        while True:
            try:
                return self._run_once(call, is_read)
            except Collided:
                collisions += 1
                if collisions >= MAX_COLLISIONS:
                    raise
                time.sleep(random.uniform(0.0, 0.002 * 2**collisions))
            except ConnectionLost:
                self.disconnect()
                losses += 1
                if losses >= MAX_LOSSES:
                    raise

    def _run_once(self, call: Call, is_read: bool) -> Answer:
        statements = self._texts if call.is_raw else self._statements
        transaction = PostgresTransaction(self.connect(), statements, self._clock, is_read=is_read)
        answer = run_work(call.work, transaction)
        if isinstance(transaction.failure, ConnectionLost):
            raise transaction.failure
        if transaction.failure is None and answer.error is None:
            return self._commit(transaction, answer, call)
        self._roll_back(transaction)
        if isinstance(transaction.failure, Collided):
            raise transaction.failure
        return Answer(None, answer.error or transaction.failure)

    def _commit(self, transaction: PostgresTransaction, answer: Answer, call: Call) -> Answer:
        try:
            transaction.commit()
        except CommitUnknown as unknown:
            server = self._server_start()
            self.disconnect()
            if self._is_committed(unknown.xid, call, server):
                return answer
            raise ConnectionLost(f"the connection to PostgreSQL at {self._target.location} broke") from unknown
        except ConnectionLost:
            raise
        except StoreError:
            self._roll_back(transaction)
            raise
        return answer

    def _roll_back(self, transaction: PostgresTransaction) -> None:
        try:
            transaction.roll_back()
        except ConnectionLost:
            self.disconnect()  # the server rolls back what it does not hear of any more

    def _is_committed(self, xid: str, call: Call, server: str | None) -> bool:
        """Ask, on a new connection, what became of a transaction of `server`. Raises OutcomeUnknown if nobody knows.

        A server that crashed may have forgotten the transaction and given its number to another one, so where it was
        started anew only "aborted" can be believed.
        """
        start, pause = _time.monotonic(), FIRST_PAUSE_SECONDS
        while (elapsed := _time.monotonic() - start) < OUTCOME_SECONDS or (call.is_patient and not call.is_abandoned):
            try:
                status = self._status(xid)
                is_same_server = self._server_start() == server
                if status == "aborted" or (status == "committed" and is_same_server):
                    return status == "committed"
                if not is_same_server:
                    break
                if elapsed > PATIENCE_SECONDS:
                    self._terminate(xid)
            except StoreUnavailable as error:
                self.disconnect()
                _log.debug("looking for the outcome of transaction %s: %s", xid, error)
            time.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_SECONDS)
        raise OutcomeUnknown(
            f"the connection to PostgreSQL at {self._target.location} broke during a commit, and whether transaction "
            f"{xid} took place is unknown; look for its effect before you repeat it"
        )

    def _status(self, xid: str) -> object:
        try:
            return self._ask("SELECT pg_xact_status(CAST(:xid AS xid8)) AS answer", xid)
        except StoreError as error:
            if isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate == FUTURE_XID:
                return "aborted"  # the server that took over never saw it
            raise

    def _terminate(self, xid: str) -> None:
        """End the server process that still holds the transaction: it does not know that nobody listens any more."""
        self._ask(
            "SELECT count(pg_terminate_backend(pid)) AS answer FROM pg_stat_activity"
            " WHERE backend_xid = xid(CAST(:xid AS xid8)) AND pid <> pg_backend_pid()",
            xid,
        )

    def _ask(self, question: str, xid: str) -> object:
        transaction = PostgresTransaction(self.connect(), self._texts, self._clock, is_read=True)
        try:
            row = transaction.fetch_one(question, xid=xid)
        except StoreError:
            self._roll_back(transaction)
            raise
        transaction.commit()
        return row and row["answer"]

    def _server_start(self) -> str | None:
        """When the server of this connection was started: what tells it from the one before a crash."""
        result = self._server.result if self._server is not None else None
        start = result.get_value(0, 0) if result is not None and result.ntuples else None
        return start.decode() if start is not None else None

    def _open(self) -> Connection:
        connection = Connection(self._target.parameters, self._target.location, prepares=not self._target.is_pooled)
        if not self._target.is_pooled:  # a process that hangs inside a transaction must not keep its locks
            connection.queue(IDLE_LIMIT)
        self._server = connection.queue(SERVER_START)
        connection.queue_sync()
        return connection
