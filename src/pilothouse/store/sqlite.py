"""SQLite: one thread writes, a few threads read from snapshots of the write-ahead log, so that no reader blocks the
writer. Several processes may share the file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path

from pilothouse.clock import Clock
from pilothouse.errors import StoreError, StoreUnavailable
from pilothouse.store.calls import (
    Answer,
    AwaitedCall,
    BlockingCall,
    Call,
    CallQueue,
    Hints,
    Order,
    answer_all,
    run_work,
)
from pilothouse.store.database import PoolUse, T, Work
from pilothouse.store.sqlite_file import SqliteFile
from pilothouse.store.sqlite_transaction import SqliteTransaction, explain
from pilothouse.store.sqlite_writer import SqliteWriter
from pilothouse.store.statements import SqlTexts, load_statements

MAX_WAITING = 10_000
READERS = 4


class SqliteDatabase:
    """The Database of one SQLite file."""

    dialect = "sqlite"

    def __init__(
        self, url: str, path: str, clock: Clock, *, synchronous: str = "FULL", statements: Traversable | None = None
    ) -> None:
        self.url, self.clock = url, clock
        self._file = SqliteFile(Path(path).absolute(), synchronous)
        self._statements = load_statements("sqlite", statements, bind_now=True)
        self._texts = SqlTexts("sqlite", bind_now=True)
        self._hints = Hints()
        self._writes = CallQueue(str(self._file.path), limit=MAX_WAITING)
        self._reads = CallQueue(str(self._file.path), limit=MAX_WAITING)
        self._writer: SqliteWriter | None = None
        self._readers: list[threading.Thread] = []
        self._identity = (0, 0)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Raises StoreUnavailable, StoreReadOnly or StoreError for a file that cannot be used, naming why."""
        with self._lock:
            if self._writer is not None:
                return
            self._writer = SqliteWriter(
                self._file,
                self._writes,
                self._hints,
                statements=self._statements,
                texts=self._texts,
                clock=self.clock,
            )
            self._identity = self._file.identity()
            self._writes.open()
            self._reads.open()
            self._readers = [self._new_reader(number) for number in range(READERS)]
            for thread in (self._writer.thread, *self._readers):
                thread.start()

    def close(self) -> None:
        """Runs what is queued, moves the log into the file and ends the threads."""
        with self._lock:
            if self._writer is None:
                return
            self._reads.close(READERS)
            for reader in self._readers:
                reader.join()
            self._writes.close(1)  # last and alone: of two that close at once, neither would move the log
            self._writer.thread.join()
            self._writer, self._readers = None, []

    async def transaction(self, work: Work[T], *, is_patient: bool = False) -> T:
        call = AwaitedCall(work, is_patient=is_patient)
        self._writes.put(call)
        result: T = await call.future
        return result

    async def read(self, work: Work[T]) -> T:
        call = AwaitedCall(work)
        self._reads.put(call)
        result: T = await call.future
        return result

    def transaction_blocking(self, work: Work[T]) -> T:
        self._refuse_nesting()
        return _finish(self._writes, work)

    def read_blocking(self, work: Work[T]) -> T:
        return _finish(self._reads, work)

    def administer(self, work: Work[T]) -> T:
        self._refuse_nesting()
        return _finish(self._writes, work, is_raw=True)

    def examine(self, work: Work[T]) -> T:
        return _finish(self._reads, work, is_raw=True)

    def pool_use(self) -> PoolUse:
        return PoolUse(1 + READERS, self._writes.busy + self._reads.busy, self._writes.waiting + self._reads.waiting)

    def check(self) -> None:
        _finish(self._reads, lambda tx: tx.fetch_all("SELECT 1 FROM sqlite_master"), is_raw=True)
        if self._file.identity() != self._identity:
            raise StoreUnavailable(
                f"{self._file.path} was replaced while it was open; restart this process on the new file"
            )

    def notify(self, topic: str) -> None:
        self._hints.tell(topic)  # other processes notice the commit itself

    def listen(self, callback: Callable[[str], None]) -> Callable[[], None]:
        stop = self._hints.add(callback)
        self._writes.look()
        return stop

    def _refuse_nesting(self) -> None:
        if self._writer is not None and threading.current_thread() is self._writer.thread:
            raise StoreError("a work cannot wait for another transaction; do all of it in one work")

    def _new_reader(self, number: int) -> threading.Thread:
        connection = self._file.open_reader()
        name = f"pilothouse-read-{number}"
        return threading.Thread(target=self._serve_reads, args=(connection,), name=name, daemon=True)

    def _serve_reads(self, connection: sqlite3.Connection) -> None:
        while (item := self._reads.take()) is not Order.END:
            if isinstance(item, Order) or item.is_abandoned:
                continue
            try:
                answer = self._read(connection, item)
            except sqlite3.Error as error:
                answer = Answer(None, explain(error, "the read", self._file.path))
            answer_all([item], [answer])
        connection.close()

    def _read(self, connection: sqlite3.Connection, call: Call) -> Answer:
        statements = self._texts if call.is_raw else self._statements
        transaction = SqliteTransaction(connection, statements, self.clock, self._file.path)
        connection.execute("BEGIN")
        try:
            answer = run_work(call.work, transaction)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return answer if transaction.failure is None else Answer(None, answer.error or transaction.failure)


def _finish(queue: CallQueue, work: Work[T], *, is_raw: bool = False) -> T:
    call = BlockingCall(work, is_raw=is_raw)
    queue.put(call)
    result: T = call.result()
    return result
