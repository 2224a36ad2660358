"""A fleet of real processes on SQLite and on PostgreSQL; at the end the run log must be whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.pgbouncer import PgBouncerUnavailable, pooled
from tests.crash.processes import Fleet
from tests.postgres_server import PostgresServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("crash")


@contextmanager
def launched(folder: Path, database_url: str, *, direct_url: str | None = None) -> Iterator[Fleet]:
    fleet = Fleet(folder, database_url, direct_url=direct_url)
    try:
        yield fleet
        fleet.assert_whole()
    finally:
        fleet.close()


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    with launched(tmp_path, database_url) as fleet:
        yield fleet


@pytest.fixture
def sqlite_fleet(tmp_path: Path) -> Iterator[Fleet]:
    with launched(tmp_path, f"sqlite:///{tmp_path / 'store.db'}") as fleet:
        yield fleet


@pytest.fixture
def postgres_fleet(tmp_path: Path, private_postgres: PostgresServer) -> Iterator[Fleet]:
    """On a server of its own, to be stopped at will."""
    with launched(tmp_path, private_postgres.url()) as fleet:
        yield fleet


@pytest.fixture
def pooled_fleet(tmp_path: Path, postgres_url: str) -> Iterator[Fleet]:
    """Behind a PgBouncer; only what needs a session of its own goes past it."""
    try:
        with pooled(postgres_url, tmp_path) as url, launched(tmp_path, url, direct_url=postgres_url) as fleet:
            yield fleet
    except PgBouncerUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test behind PgBouncer: {error}")
        pytest.skip(f"NOT TESTED behind PgBouncer: {error}")
