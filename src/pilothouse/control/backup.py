"""Backup and restore: one compressed file that holds a consistent copy of a database, for either store.

The file is gzip of JSON lines: what it is, then per table its columns and its rows, and last the number of rows of each
table and the SHA-256 of all lines before. A file that was cut or changed is told before anything is written.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse import __version__
from pilothouse.clock import isoformat
from pilothouse.control.digested import DigestedLines
from pilothouse.errors import ConfigError, Conflict
from pilothouse.store import archive, migrations
from pilothouse.store.database import Database, Transaction

FORMAT = 1
BATCH = 1000
COMPRESSION = 6
"""Of gzip; higher levels take much longer for little."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds: rows by table, the schema's version and when it was made (ISO 8601)."""

    rows: dict[str, int]
    schema: int
    created_at: str

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def backup(db: Database, path: Path) -> Contents:
    """Writes a consistent copy of the database while others go on writing.

    Raises ConfigError for a path that cannot be written; then nothing is left there.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        contents = db.examine(lambda tx: _write_file(tx, part, db.clock.now_us()))
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return contents


def _write_file(tx: Transaction, path: Path, now: int) -> Contents:
    """From its beginning: where the connection is lost, this runs again on another snapshot."""
    with gzip.open(path, "wb", compresslevel=COMPRESSION) as file:
        return _write(tx, file, now)


def _write(tx: Transaction, file: gzip.GzipFile, now: int) -> Contents:
    lines = DigestedLines(file)
    rows: dict[str, int] = {}
    contents = Contents(rows, migrations.version_in(tx), isoformat(now))
    lines.write(
        {"backup": FORMAT, "schema": contents.schema, "created_at": contents.created_at, "version": __version__}
    )
    for table in archive.tables(tx):
        lines.write({"table": table.name, "columns": list(table.columns)})
        rows[table.name] = 0
        for row in archive.read_rows(tx, table):
            lines.write(row)
            rows[table.name] += 1
    lines.close(rows)
    return contents


def inspect(path: Path) -> Contents:
    """What a file holds, once all of it has been read and found whole. Raises ConfigError that says what is wrong."""
    first: dict[str, Any] | None = None
    counted: dict[str, int] = {}
    table = ""
    for line in _lines(path):
        value = line.value
        if first is None:
            first = _first(path, value)
        elif isinstance(value, list):
            counted[table] += 1
        elif "table" in value:
            table = value["table"]
            counted[table] = 0
        elif value.get("digest") == line.digest_before and value["rows"] == counted:
            return Contents(counted, first["schema"], first["created_at"])
        else:
            break
    raise ConfigError(f"{path} was cut or changed: what it holds is not what was written; use another backup")


def _first(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("backup") != FORMAT:
        raise ConfigError(f"{path} is no backup that this Pilothouse can read")
    return value


@dataclass(frozen=True, slots=True)
class _Line:
    value: Any
    digest_before: str


def _lines(path: Path) -> Iterator[_Line]:
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            for text in file:
                yield _Line(json.loads(text), digest.hexdigest() if text.startswith(b'{"rows"') else "")
                digest.update(text)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read as a backup: {error}; was it cut?") from error


def restore(path: Path, db: Database) -> Contents:
    """Writes a backup into an empty database, which may be of the other dialect, and counts what has arrived.

    Raises ConfigError for a file that is not whole, Conflict for a database that is not empty; then nothing is changed.
    """
    contents = inspect(path)
    if not migrations.is_empty(db):
        raise Conflict("the database is not empty; restore into a new one, and point DATABASE_URL at it afterwards")
    newest = migrations.newest_version(db)
    if contents.schema > newest:
        raise Conflict(f"{path} has schema {contents.schema}, ours is {newest}; use the Pilothouse that wrote it")
    migrations.migrate(db, up_to=contents.schema)
    arrived = db.administer(lambda tx: _load(tx, path))
    if arrived != contents.rows:
        raise Conflict(f"{path} holds {contents.rows}, but {arrived} arrived; do not use this database")
    migrations.migrate(db)
    return contents


def _load(tx: Transaction, path: Path) -> dict[str, int]:
    """All rows in one transaction."""
    known = {table.name: table for table in archive.tables(tx)}
    table, columns, batch = "", list[str](), list[list[object]]()
    for line in _lines(path):
        value = line.value
        if isinstance(value, list):
            batch.append(value)
        if batch and (len(batch) >= BATCH or not isinstance(value, list)):
            archive.write_rows(tx, known[table], columns, batch)
            batch = []
        if isinstance(value, dict) and "table" in value:
            table, columns = value["table"], value["columns"]
    archive.move_sequences(tx, list(known.values()))
    return {name: archive.count_rows(tx, each) for name, each in known.items()}
