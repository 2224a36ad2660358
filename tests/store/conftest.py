"""Every test that takes `notes` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilothouse.clock import Clock
from pilothouse.store.database import Database, open_database

NOTES = Path(__file__).parent / "notes"

OpenNotes = Callable[..., Database]


@pytest.fixture
def has_schema() -> bool:
    return False


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
