"""What goes out: JSON, made once, and pages of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Query, Response

MAX_PAGE = 200

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many items a page has at most.")]


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, dict(headers) if headers else None, "application/json")


def page(items: Sequence[Mapping[str, Any]], *, limit: int, key: str) -> Response:
    """A page of at most `limit` of the `items`, of which one more was fetched to see whether there is a next page."""
    shown = items[:limit]
    return answer({"items": shown, "next": shown[-1][key] if len(items) > limit else None})
