"""What commands share: the settings, the database in a state that fits, and a loop to run one verb on."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pilothouse.errors import ConfigError

if TYPE_CHECKING:
    from pilothouse.config import Settings
    from pilothouse.store.database import Database

T = TypeVar("T")

Schema = Literal["migrate", "create", "expect"]
"""What may be done to a schema: bring it up to date, create one where there is none, or nothing."""

DEBUG_VARIABLE = "PILOTHOUSE_DEBUG"


def wants_traceback() -> bool:
    return bool(os.environ.get(DEBUG_VARIABLE))  # noqa: TID251 - must work while the settings are what is broken


def principal() -> str:
    """Who acts on this command line."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def prepare_schema(db: Database, schema: Schema) -> None:
    """Makes sure that this Pilothouse can work on the database. Raises SchemaError with the command to run."""
    from pilothouse.store.migrations import ensure_current, ensure_writable, is_empty, migrate

    if schema == "migrate" or (schema == "create" and is_empty(db)):
        migrate(db)
    ensure_current(db)
    if schema != "expect":
        ensure_writable(db)


@contextmanager
def open_session(settings: Settings) -> Iterator[Database]:
    """The database of the settings, started. Never makes one: a mistyped path must not become an empty file."""
    from pilothouse.store.database import open_database

    missing = _missing_file(settings.database_url)
    if missing is not None:
        raise ConfigError(
            f"there is no database at {missing}; start one with `pilothouse up`, "
            "or set DATABASE_URL to the one that you mean"
        )
    db = open_database(settings.database_url, pool_size=2, direct_url=settings.direct_url)
    try:
        db.start()
        yield db
    finally:
        db.close()


def run(work: Callable[[Database], Awaitable[T]]) -> T:
    """Runs one verb on the database of the settings."""
    from pilothouse.config import load_settings

    with open_session(load_settings()) as db:
        prepare_schema(db, "expect")
        return asyncio.run(_awaited(work(db)))


async def _awaited(result: Awaitable[T]) -> T:
    return await result


def _missing_file(url: str) -> Path | None:
    """The file of a SQLite URL, if it is not there."""
    if not url.startswith("sqlite:///"):
        return None
    path = Path(unquote(urlsplit(url).path.removeprefix("/")))
    return None if path.exists() else path.absolute()
