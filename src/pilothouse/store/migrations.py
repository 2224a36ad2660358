"""Schema migrations: numbered files, each applied once, in one transaction, by one process at a time.

`NNNN_{pre|post}_name[.sqlite|.postgres].sql` in the folder `migrations`. `pre` only adds and runs before a deployment,
`post` takes away and runs after it. What differs little between the dialects is a placeholder such as `{id}`, or a
block from `-- only: postgres` to `-- end`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal, NamedTuple, TypeAlias

from pilothouse.errors import SchemaError, StoreError, StoreReadOnly, StoreUnavailable
from pilothouse.store.database import Database, Row, Transaction
from pilothouse.store.statements import split_script

Phase: TypeAlias = Literal["pre", "post"]

_FILE_NAME = re.compile(
    r"(?P<version>\d{4})_(?P<phase>pre|post)_(?P<name>\w+?)(?:\.(?P<dialect>sqlite|postgres))?\.sql"
)
_ONLY_BLOCK = re.compile(r"^-- only: (\w+)\n(.*?)^-- end$", re.MULTILINE | re.DOTALL)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PLACEHOLDERS = {
    "sqlite": {
        "id": "TEXT",
        "bigint": "INTEGER",
        "double": "REAL",
        "bigserial": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "without_rowid": "WITHOUT ROWID",
    },
    "postgres": {
        "id": 'TEXT COLLATE "C"',
        "bigint": "BIGINT",
        "double": "DOUBLE PRECISION",
        "bigserial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "without_rowid": "",
    },
}
_LOCK = {
    "sqlite": "SELECT 1",
    "postgres": "SELECT pg_advisory_xact_lock(7305803341)",
}  # SQLite's writer is alone anyway
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "postgres": "SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()",
}
_CREATE = """CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    phase TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)"""
_APPLIED = "SELECT version, name, checksum, phase, applied_at FROM schema_migrations ORDER BY version"
_WRITE_NOTHING = "DELETE FROM schema_migrations WHERE version < 0"
_RECORD = """INSERT INTO schema_migrations (version, name, checksum, phase, applied_at)
VALUES (:version, :name, :checksum, :phase, :now)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, as it is for one dialect. `checksum` is of the file, whatever the dialect."""

    version: int
    name: str
    phase: Phase
    checksum: str
    statements: tuple[str, ...]


class MigrationStatus(NamedTuple):
    """`applied_at` is None while the migration waits."""

    version: int
    name: str
    phase: Phase
    applied_at: int | None


def status(db: Database, *, folder: Traversable | None = None) -> list[MigrationStatus]:
    """Every migration that this Pilothouse or the database knows, in order."""
    applied = {row["version"]: row for row in db.administer(_read_applied)}
    known = {each.version: (each.name, each.phase) for each in load_migrations(db.dialect, folder)}
    known |= {version: (row["name"], row["phase"]) for version, row in applied.items()}
    return [
        MigrationStatus(version, *known[version], applied[version]["applied_at"] if version in applied else None)
        for version in sorted(known)
    ]


def migrate(
    db: Database, phase: Phase | None = None, *, folder: Traversable | None = None, up_to: int | None = None
) -> list[MigrationStatus]:
    """Apply what waits, all of it, one phase, or `up_to` a version, and return it. Several processes may do so at once.

    Raises SchemaError for a database of a newer Pilothouse, or one whose migrations differ from the shipped ones.
    """
    migrations = [each for each in load_migrations(db.dialect, folder) if up_to is None or each.version <= up_to]
    done: list[MigrationStatus] = []
    while applied := db.administer(lambda tx: _apply_next(tx, migrations, phase)):
        done.append(applied)
    return done


def ensure_current(db: Database, *, folder: Traversable | None = None) -> None:
    """Raise SchemaError unless this Pilothouse can work on the database.

    It can while every `pre` migration is applied, and while a newer Pilothouse has only added to the schema.
    """
    migrations = load_migrations(db.dialect, folder)
    _expect_current(db.administer(_read_applied), migrations)


def _expect_current(applied: Sequence[Row], migrations: Sequence[Migration]) -> None:
    _check_applied(applied, migrations)
    done = {row["version"] for row in applied}
    waiting = [each for each in migrations if each.version not in done and each.phase == "pre"]
    if waiting:
        raise SchemaError(
            f"the database's schema is older than this Pilothouse: {len(waiting)} migrations wait, "
            f"the first is {waiting[0].version:04}_{waiting[0].name}; run `pilothouse db migrate`"
        )


async def ensure_current_now(db: Database) -> None:
    """The same on a connection that is open already, for those who ask again and again."""
    try:
        applied = await db.read(lambda tx: tx.fetch_all("applied_migrations"))
    except StoreUnavailable:
        raise
    except StoreError:  # there is no such table
        applied = []
    _expect_current(applied, await asyncio.to_thread(_own_migrations, db.dialect))


@lru_cache
def _own_migrations(dialect: str) -> tuple[Migration, ...]:
    return tuple(load_migrations(dialect))


def newest_version(db: Database) -> int:
    """The version of the schema that this Pilothouse has."""
    return load_migrations(db.dialect)[-1].version


def version_in(tx: Transaction) -> int:
    """The version of the schema that a database has."""
    return max((row["version"] for row in _read_applied(tx)), default=0)


def is_empty(db: Database) -> bool:
    """Whether the database has no tables at all."""
    return not db.administer(lambda tx: tx.fetch_all(_TABLES[tx.dialect]))


def ensure_writable(db: Database) -> None:
    """Raise StoreReadOnly where this process may only read the database, which SQLite tells no sooner than a write."""
    try:
        db.administer(lambda tx: tx.execute(_WRITE_NOTHING))
    except StoreReadOnly as error:
        raise StoreReadOnly(f"nothing can be written to the database: {error}") from error


def load_migrations(dialect: str, folder: Traversable | None = None) -> list[Migration]:
    """The migrations in `folder`, the package's own unless given, in order.

    Raises SchemaError for a file whose name or content breaks the rules.
    """
    folder = folder or files("pilothouse.store") / "migrations"
    chosen: dict[int, Migration] = {}
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise SchemaError(f"migration {file.name} must be named NNNN_pre_name.sql or NNNN_post_name.sql")
        if match["dialect"] in (None, dialect):
            migration = _load(file, match, dialect)
            if migration.version in chosen:
                raise SchemaError(f"two migrations have the number {migration.version:04} for {dialect}")
            chosen[migration.version] = migration
    return [chosen[version] for version in sorted(chosen)]


def _load(file: Traversable, match: re.Match[str], dialect: str) -> Migration:
    text = file.read_text(encoding="utf-8")
    phase: Phase = "pre" if match["phase"] == "pre" else "post"
    checksum = hashlib.sha256(text.encode()).hexdigest()
    is_complete = sqlite3.complete_statement if dialect == "sqlite" else lambda _: True
    statements = split_script(_for_dialect(text, dialect, file.name), is_complete=is_complete)
    return Migration(int(match["version"]), match["name"], phase, checksum, tuple(statements))


def _for_dialect(text: str, dialect: str, file_name: str) -> str:
    def word(found: re.Match[str]) -> str:
        if found[1] not in _PLACEHOLDERS[dialect]:
            raise SchemaError(f"migration {file_name} uses the unknown placeholder {found[0]}")
        return _PLACEHOLDERS[dialect][found[1]]

    text = _ONLY_BLOCK.sub(lambda block: block[2] if block[1] == dialect else "", text)
    return _PLACEHOLDER.sub(word, text)


def _read_applied(tx: Transaction) -> list[Row]:
    names = {row["name"] for row in tx.fetch_all(_TABLES[tx.dialect])}
    return tx.fetch_all(_APPLIED) if "schema_migrations" in names else []


def _apply_next(tx: Transaction, migrations: Sequence[Migration], phase: Phase | None) -> MigrationStatus | None:
    tx.fetch_all(_LOCK[tx.dialect])
    tx.execute(_CREATE)
    applied = tx.fetch_all(_APPLIED)
    _check_applied(applied, migrations)
    done = {row["version"] for row in applied}
    waiting = [each for each in migrations if each.version not in done and phase in (None, each.phase)]
    if not waiting:
        return None
    return _apply(tx, waiting[0])


def _apply(tx: Transaction, migration: Migration) -> MigrationStatus:
    for statement in migration.statements:
        tx.execute(statement)
    tx.execute(
        _RECORD, version=migration.version, name=migration.name, checksum=migration.checksum, phase=migration.phase
    )
    (row,) = [row for row in tx.fetch_all(_APPLIED) if row["version"] == migration.version]
    return MigrationStatus(migration.version, migration.name, migration.phase, row["applied_at"])


def _check_applied(applied: Sequence[Row], migrations: Sequence[Migration]) -> None:
    known = {each.version: each for each in migrations}
    for row in applied:
        migration = known.get(row["version"])
        if migration is None:
            _check_newer(row, newest=max(known, default=0))
        elif migration.checksum != row["checksum"]:
            raise SchemaError(
                f"migration {migration.version:04}_{migration.name} differs from the one that this database has; "
                "a shipped migration is never edited: install the released Pilothouse again"
            )


def _check_newer(row: Row, *, newest: int) -> None:
    """A newer `pre` migration only adds, so that the release before it still works, and can be rolled back to."""
    if row["phase"] != "pre":
        raise SchemaError(
            f"this database was written by a newer Pilothouse: schema {row['version']}, "
            f"this one knows {newest}; upgrade Pilothouse"
        )
