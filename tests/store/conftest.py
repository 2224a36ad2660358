"""Every test that takes `database`, `notes` or `database_url` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilothouse.clock import Clock
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate

NOTES = Path(__file__).parent / "notes"

OpenNotes = Callable[..., Database]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A started database with Pilothouse's own schema and statements."""
    db = open_database(database_url)
    db.start()
    migrate(db)
    yield db
    db.close()


@pytest.fixture
def open_notes() -> Iterator[OpenNotes]:
    """Opens databases that have one table, `notes`, and the statements of the folder beside; closes them at the end."""
    opened: list[Database] = []

    def open_one(url: str, *, clock: Clock | None = None, pool_size: int = 4) -> Database:
        db = open_database(url, clock=clock, pool_size=pool_size, statements=NOTES)
        opened.append(db)
        db.start()
        db.administer(
            lambda tx: tx.execute(
                "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT, created_at BIGINT NOT NULL)"
            )
        )
        return db

    yield open_one
    for db in opened:
        db.close()


@pytest.fixture
def notes(open_notes: OpenNotes, database_url: str) -> Database:
    return open_notes(database_url)
