"""What all tests share: real PostgreSQL, one server for the whole test run, one fresh database for each test."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
import time_machine
from hypothesis import settings

from pilothouse import clock
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from pilothouse.testing import write_empty_database
from tests.postgres_admin import PostgresAdmin
from tests.postgres_server import (
    PostgresServer,
    PostgresUnavailable,
    close_run_directory,
    create_server,
    open_run_directory,
    shared_server_url,
)

Result = TypeVar("Result")

RUN_DIRECTORY_VARIABLE = "PILOTHOUSE_TEST_RUN_DIRECTORY"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY_SECONDS, ENDING_SECONDS = 86_400, 60
RUN_DIRECTORY = pytest.StashKey[tuple[Path, int]]()

# A busy machine is slow, not wrong; and in CI the same commit must give the same answer twice.
settings.register_profile("pilothouse", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("pilothouse")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # a process of pytest-xdist: it inherits the folder of the process that controls it
    directory, descriptor = open_run_directory()
    config.stash[RUN_DIRECTORY] = (directory, descriptor)
    os.environ[RUN_DIRECTORY_VARIABLE] = str(directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN_DIRECTORY in config.stash:
        close_run_directory(*config.stash[RUN_DIRECTORY])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a PostgreSQL fixture is marked `postgres`."""
    for item in items:
        if {"postgres_url", "private_postgres"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("postgres")


@pytest.fixture(scope="session")
def postgres_server_url() -> str:
    """The shared server: the one of PILOTHOUSE_TEST_POSTGRES_URL, else one that this test run starts."""
    given = os.environ.get("PILOTHOUSE_TEST_POSTGRES_URL")
    return given or _or_skip(shared_server_url)


@pytest.fixture(scope="session")
def postgres_admin(postgres_server_url: str) -> Iterator[PostgresAdmin]:
    with PostgresAdmin.connected(postgres_server_url) as admin:
        yield admin


@pytest.fixture(scope="session")
def migrated_template(postgres_admin: PostgresAdmin) -> Iterator[str]:
    """A database with Pilothouse's schema: to copy it is quicker than to migrate anew."""
    with postgres_admin.database() as url:
        migrate_at(url)
        yield urlsplit(url).path[1:]


@pytest.fixture
def has_schema() -> bool:
    """Whether new databases have Pilothouse's schema already."""
    return True


@pytest.fixture
def postgres_url(postgres_admin: PostgresAdmin, has_schema: bool, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a new database without any rows that is dropped after the test."""
    template = request.getfixturevalue("migrated_template") if has_schema else "template1"
    with postgres_admin.database(template) as url:
        yield url


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A running server of the test's own, to be stopped, killed and started at will."""
    server = _or_skip(create_server)
    yield server
    server.kill()
    shutil.rmtree(server.directory)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, has_schema: bool) -> str:
    """The URL of a new database without any rows."""
    if request.param == "sqlite":
        file = tmp_path / "store.db"
        if has_schema:
            write_empty_database(file)
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A started database with Pilothouse's own schema and statements."""
    db = open_database(database_url)
    db.start()
    yield db
    db.close()


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's clock goes on from one noon: for tests that move on from there, whatever the day they run on."""
    monkeypatch.setattr(clock, "_last_tick", 0)  # or ids would be of the day of the tests before
    with time_machine.travel(NOON):
        yield


@pytest.fixture(autouse=True)
def one_day() -> None:
    """No test begins as a day ends: many count what one allows, on the clock of the machine and of its servers."""
    while DAY_SECONDS - time.time() % DAY_SECONDS < ENDING_SECONDS:
        time.sleep(0.1)


def migrate_at(url: str) -> None:
    db = open_database(url)
    db.start()
    migrate(db)
    db.close()


def _or_skip(start: Callable[[Path], Result]) -> Result:
    try:
        return start(Path(os.environ[RUN_DIRECTORY_VARIABLE]))
    except PostgresUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on PostgreSQL: {error}")
        pytest.skip(f"NOT TESTED on PostgreSQL: {error}")
