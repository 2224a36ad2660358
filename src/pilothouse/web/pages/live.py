"""What a page listens to, to know when to look again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.web.access import caller_of
from pilothouse.web.backend import BackendOf
from pilothouse.web.newsroom import Newsroom
from pilothouse.web.streams import Frames, LastEventId, frame, numbers_of

router = APIRouter(include_in_schema=False)

EVERYTHING = ("all",)
"""What a browser is told that was away for a while."""


@router.get("/live")
async def follow(request: Request, backend: BackendOf, last_event_id: LastEventId = None) -> Response:
    """A `changed` event with the kinds of things that have changed: `run`, `approval`, `switch`.

    A browser then asks for its page anew, so it misses nothing whatever it was not told.
    """
    heard = numbers_of(last_event_id, count=1)
    return await Frames.begun(_frames(backend.newsroom, caller_of(request).tenant, heard[0] if heard else None))


async def _frames(newsroom: Newsroom, tenant: str | None, heard: int | None) -> AsyncIterator[bytes | None]:
    is_first = True
    async for batch in newsroom.batches(None):
        if is_first:
            topics = EVERYTHING if heard is not None and heard < batch.seq else ()
            yield frame("changed", {"topics": topics}, str(batch.seq))
        else:
            changed = batch.shown(("topics", tenant), partial(_topics, tenant=tenant))
            yield frame("changed", {"topics": changed}, str(batch.seq)) if changed else None
        is_first = False


def _topics(rows: Sequence[Mapping[str, Any]], *, tenant: str | None) -> tuple[str, ...]:
    """What the records of a tenant, or of all, are about."""
    return tuple(sorted({row["entity"] for row in rows if tenant in (None, row["tenant"])}))
