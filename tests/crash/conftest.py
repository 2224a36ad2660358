"""A fleet of real processes on SQLite and on PostgreSQL; at the end the run log must be whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.processes import Fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("crash")


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    made = Fleet(tmp_path, database_url)
    try:
        yield made
        assert made.broken_invariants() == []
    finally:
        made.close()


@pytest.fixture
def sqlite_fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, f"sqlite:///{tmp_path / 'store.db'}")
    try:
        yield made
        assert made.broken_invariants() == []
    finally:
        made.close()
