"""The one thread that writes to a SQLite file. It takes every work that waits into one durable commit, each in a
savepoint of its own (group commit), and looks between commits whether another process has changed the file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

from pilothouse.clock import Clock, SystemClock
from pilothouse.errors import StoreError, StoreUnavailable
from pilothouse.store.calls import Answer, Call, CallQueue, Hints, Order, answer_all, run_work
from pilothouse.store.sqlite_file import BUSY_SECONDS, SqliteFile
from pilothouse.store.sqlite_transaction import SqliteTransaction, explain, result_code
from pilothouse.store.statements import SqlTexts, Statements

MAX_BATCH = 256
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.0003, 0.005
LOOK_SECONDS = 0.002

_log = logging.getLogger(__name__)
_time = SystemClock()


class BatchLost(Exception):
    """A failure has rolled back not only its own work but the whole batch."""


class SqliteWriter:
    """Opens the file at once; its `thread`, to be started, ends and closes the file after END in `queue`."""

    def __init__(
        self, file: SqliteFile, queue: CallQueue, hints: Hints, *, statements: Statements, texts: SqlTexts, clock: Clock
    ) -> None:
        self._file, self._queue, self._hints = file, queue, hints
        self._statements, self._texts, self._clock = statements, texts, clock
        self._connection = file.open_writer()
        self._connection.execute("PRAGMA busy_timeout = 0")  # `_begin` waits better
        self._seen_version = self._data_version()
        self.thread = threading.Thread(target=self._run, name="pilothouse-write", daemon=True)

    def _run(self) -> None:
        while True:
            item = self._queue.take(LOOK_SECONDS if self._hints.are_wanted else None)
            if item is Order.END:
                break
            if not isinstance(item, Order):
                self._write([item, *self._queue.take_waiting(MAX_BATCH - 1)])
            if self._hints.are_wanted:
                self._look()
        self._end()

    def _write(self, calls: list[Call]) -> None:
        calls = [call for call in calls if not call.is_abandoned]
        try:
            answers = self._commit(calls)
        except Exception as error:  # noqa: BLE001 - top of the loop: the thread outlives any failure; the callers get it
            _log.exception("a batch of %d transactions failed in the driver", len(calls))
            self._roll_back()
            answers = [Answer(None, StoreError(f"the transaction failed: {error!r}")) for _ in calls]
        answer_all(calls, answers)

    def _commit(self, calls: list[Call]) -> list[Answer]:
        """All calls in one commit if possible; one by one if that fails, so that only the culprit fails."""
        if len(calls) > 1 and any(call.is_raw for call in calls):
            return self._commit_singly(calls)
        try:
            return self._commit_together(calls)
        except StoreUnavailable as error:
            return [Answer(None, StoreUnavailable(str(error))) for _ in calls]
        except (sqlite3.Error, BatchLost) as error:
            self._roll_back()
            if len(calls) == 1 and isinstance(error, sqlite3.Error):
                return [Answer(None, explain(error, "the transaction", self._file.path))]
            return self._commit_singly(calls)

    def _commit_singly(self, calls: list[Call]) -> list[Answer]:
        return [answer for call in calls for answer in self._commit([call])]

    def _commit_together(self, calls: list[Call]) -> list[Answer]:
        self._begin()
        if len(calls) > 1:
            answers = [self._run_in_savepoint(call) for call in calls]
        else:
            answers = [self._run_work(call) for call in calls]
        if all(answer.error for answer in answers):
            self._roll_back()
        else:
            self._connection.execute("COMMIT")
        return answers

    def _run_in_savepoint(self, call: Call) -> Answer:
        self._connection.execute("SAVEPOINT work")
        answer = self._run_work(call)
        if not self._connection.in_transaction:
            raise BatchLost
        if answer.error is not None:
            self._connection.execute("ROLLBACK TO work")
        self._connection.execute("RELEASE work")
        return answer

    def _run_work(self, call: Call) -> Answer:
        statements = self._texts if call.is_raw else self._statements
        transaction = SqliteTransaction(self._connection, statements, self._clock, self._file.path)
        answer = run_work(call.work, transaction)
        if transaction.failure is not None and answer.error is None:
            return Answer(None, transaction.failure)
        return answer

    def _begin(self) -> None:
        """Take the write lock. SQLite's own waiting doubles its pauses up to 100 ms, so the waiting is done here."""
        deadline = _time.monotonic() + BUSY_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while not self._try_begin():
            if _time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"another process has held the write lock of {self._file.path} for {BUSY_SECONDS:.0f} s; "
                    "end the process that hangs (fuser shows which have the file open)"
                )
            if self._hints.are_wanted:
                self._look()
            time.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE_SECONDS)

    def _try_begin(self) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if result_code(error) == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _look(self) -> None:
        """Tell the listeners when another process has committed: the commits of this connection do not count."""
        try:
            version = self._data_version()
        except sqlite3.Error as error:
            _log.debug("cannot look for changes: %s", error)
            return
        if version != self._seen_version:
            self._seen_version = version
            self._hints.tell("*")

    def _data_version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _end(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            _log.info("the log of %s stays for the next to open it: %s", self._file.path, error)
        self._connection.close()
