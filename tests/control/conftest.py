"""A database with an agent and a worker, on SQLite and on PostgreSQL; every test must leave its invariants whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pilothouse.control import checks
from pilothouse.store.database import Database
from tests.control.steps import NAME_SCHEMA, card, register, start_worker


@pytest.fixture
def db(database: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    register(database, card("echo"), card("greet", schema=NAME_SCHEMA), card("other"))
    yield database
    if "corrupts" not in request.keywords:
        broken = [v for v in asyncio.run(checks.check(database, grace_us=60_000_000)) if not v.holds]
        assert not broken


@pytest.fixture
def worker(db: Database) -> str:
    return start_worker(db)
