"""Databases that are not ours: read-only queries for tools."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit

from pilothouse.errors import ConfigError, ToolError

STEPS_BETWEEN_LOOKS = 100_000
"""SQLite's virtual steps after which a long query is asked whether it may go on."""


def read_rows(
    url: str, sql: str, parameters: Mapping[str, Any], *, limit: int, seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a query, and whether there are more than `limit`. Nothing that writes gets through.

    `url` is sqlite:///FILE or postgresql://…; parameters are `:name` in SQLite and `%(name)s` in PostgreSQL.
    Raises ToolError with what the database says.
    """
    if urlsplit(url).scheme == "sqlite":
        return _read_sqlite(url, sql, parameters, limit, seconds)
    return _read_postgres(url, sql, parameters, limit, seconds)


def check_url(url: str) -> None:
    """Raises ConfigError for a URL of no database that can be read."""
    if urlsplit(url).scheme not in ("sqlite", "postgresql", "postgres"):
        raise ConfigError(f"{url.partition('://')[0]!r} is no database; write sqlite:///FILE or postgresql://…")


def _read_sqlite(
    url: str, sql: str, parameters: Mapping[str, Any], limit: int, seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    import time

    path = unquote(urlsplit(url).path.removeprefix("/"))
    ends_at = time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=seconds)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(_refuse_attaching)
            connection.set_progress_handler(lambda: time.monotonic() > ends_at, STEPS_BETWEEN_LOOKS)
            cursor = connection.execute(sql, dict(parameters))
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchmany(limit + 1)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise ToolError(f"the database refused the query: {error}") from error
    return [dict(zip(names, row, strict=True)) for row in rows[:limit]], len(rows) > limit


def _refuse_attaching(action: int, *_: object) -> int:
    """Another file would be another database; a pragma could switch off what keeps this one read-only."""
    return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_PRAGMA) else sqlite3.SQLITE_OK


def _read_postgres(
    url: str, sql: str, parameters: Mapping[str, Any], limit: int, seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    try:
        import psycopg
        from psycopg.rows import dict_row
    except ModuleNotFoundError as error:
        raise ToolError('PostgreSQL needs its driver: pip install "pilothouse[postgres]"') from error
    options = f"-c default_transaction_read_only=on -c statement_timeout={int(seconds * 1000)}"
    try:
        with psycopg.connect(url, options=options, row_factory=dict_row) as connection:
            connection.read_only = True
            cursor = connection.execute(sql.encode(), dict(parameters), prepare=False)
            rows = cursor.fetchmany(limit + 1)
    except psycopg.Error as error:
        raise ToolError(f"the database refused the query: {error}") from error
    return rows[:limit], len(rows) > limit
