"""`sql_query`: read-only queries of a database that is not Pilothouse's."""

from __future__ import annotations

from typing import Any

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Tool, ToolOptions, make_tool
from pilothouse.store.foreign import check_url, read_rows

MAX_ROWS = 100
QUERY_SECONDS = 10.0


def sql_query(
    url: str, *, name: str = "sql_query", max_rows: int = MAX_ROWS, timeout_seconds: float = QUERY_SECONDS
) -> Tool:
    """A tool that reads from the database of `url`, sqlite:///FILE or postgresql://…, up to `max_rows` rows.

    The connection is read-only in the database's own eyes: what writes is refused there. Raises ConfigError for
    another URL.
    """
    check_url(url)

    def query(sql: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """Runs one SELECT and returns its rows; `more` says whether there were more."""
        rows, has_more = read_rows(url, sql, parameters or {}, limit=max_rows, seconds=timeout_seconds)
        return {"rows": rows, "more": has_more}

    return make_tool(query, name, ToolOptions(effect=Effect.READ, platform="sql", timeout_seconds=timeout_seconds + 5))
