"""What the database server does now, and what has taken it longest; SQLite has no server and keeps no such figures."""

from __future__ import annotations

from pilothouse.store.database import Database, Row

SHOWN = 30

_VERSION = {"sqlite": "SELECT sqlite_version() AS version", "postgres": "SELECT version() AS version"}

_NOW = """SELECT pid, state, wait_event_type, wait_event, pg_blocking_pids(pid) AS blocked_by, application_name,
    extract(epoch FROM clock_timestamp() - query_start)::float8 AS query_seconds,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds, left(query, 500) AS query
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY state = 'idle', query_start LIMIT :limit"""

_HAS_FIGURES = "SELECT to_regclass('pg_stat_statements') IS NOT NULL AS has_figures"
_SLOWEST = """SELECT calls, total_exec_time AS total_ms, mean_exec_time AS mean_ms, max_exec_time AS longest_ms, rows,
    left(query, 500) AS query
FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY total_exec_time DESC LIMIT :limit"""


def version(db: Database) -> str:
    """Of the database itself."""
    row = db.examine(lambda tx: tx.fetch_one(_VERSION[tx.dialect]))
    return str(row["version"]) if row else ""


def under_way(db: Database) -> list[Row] | None:
    """What each connection does now, and what it waits for; None where there is no server."""
    return None if db.dialect == "sqlite" else db.examine(lambda tx: tx.fetch_all(_NOW, limit=SHOWN))


def slowest(db: Database) -> list[Row] | None:
    """The statements that took most time in all; None where the extension pg_stat_statements is not there."""
    if db.dialect == "sqlite":
        return None
    found = db.examine(lambda tx: tx.fetch_one(_HAS_FIGURES))
    if found is None or not found["has_figures"]:
        return None
    return db.examine(lambda tx: tx.fetch_all(_SLOWEST, limit=SHOWN))
