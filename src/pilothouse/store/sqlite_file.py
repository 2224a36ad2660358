"""The database file of SQLite: checks that it can be used, opens connections to it, knows when it was replaced."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pilothouse.errors import ConfigError, StoreError, StoreReadOnly, StoreUnavailable
from pilothouse.store.sqlite_transaction import explain

OLDEST_SQLITE = (3, 39, 0)  # ->>, FULL JOIN, RETURNING
BUSY_SECONDS = 30.0

CACHE_KIBIBYTES = 16_384
"""Pages kept in memory per connection, taken as they are needed. With SQLite's 2 MiB a settle takes twice as long."""

LOG_PAGES = 4_000
"""Length of the write-ahead log, 4 KiB each, at which it is moved into the file: pages that change often move once."""


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """`synchronous` is SQLite's own setting: FULL makes each commit durable before it returns."""

    path: Path
    synchronous: str

    def open_writer(self) -> sqlite3.Connection:
        """Creates the file if need be. Raises a StoreError that names why the file cannot be used."""
        require_version(sqlite3.sqlite_version_info)
        self._check_folder()
        connection = self._connect()
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            connection.close()
            raise StoreError(f"{self.path} cannot have a write-ahead log (mode {mode}); move it to a local disk")
        return connection

    def _check_folder(self) -> None:
        folder = self.path.parent
        try:
            is_there = folder.is_dir()
        except OSError as error:
            raise StoreReadOnly(f"the folder {folder} of the database cannot be entered: {error.strerror}") from error
        if not is_there:
            raise StoreUnavailable(f"the folder {folder} of the database does not exist; create it")

    def open_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def identity(self) -> tuple[int, int]:
        """What tells the file from another one at the same path. Raises StoreUnavailable when there is none."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise StoreUnavailable(f"the database file {self.path} cannot be found: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
            )
        except sqlite3.Error as error:
            raise explain(error, "opening the database", self.path) from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            connection.execute("PRAGMA case_sensitive_like = ON")  # as on PostgreSQL
        except sqlite3.Error as error:
            connection.close()
            raise explain(error, "opening the database", self.path) from error
        return connection


def require_version(version: tuple[int, ...]) -> None:
    if version < OLDEST_SQLITE:
        needed, found = (".".join(map(str, each)) for each in (OLDEST_SQLITE, version))
        raise ConfigError(f"SQLite {needed} or later is needed, this Python brings {found}; use a newer Python")
