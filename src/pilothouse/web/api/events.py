"""Events by SSE: what happens to one run until it ends, and what happens at all. Both resume by Last-Event-ID."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from pilothouse.control import runs, watching
from pilothouse.control.views import CANCELLING, run_view, view
from pilothouse.control.watching import News, Place
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import StoreUnavailable
from pilothouse.web.backend import BackendOf
from pilothouse.web.newsroom import Newsroom
from pilothouse.web.openapi import PROBLEMS
from pilothouse.web.streams import Frames, LastEventId, PulseOf, event, frame, numbers_of

router = APIRouter(prefix="/api/v1", tags=["events"])

T = TypeVar("T")


async def watch_of(id: str, backend: BackendOf, last_event_id: LastEventId = None) -> RunWatch:
    """Where to begin; refuses, before the stream starts, what can have no stream."""
    place = Place(*(numbers_of(last_event_id, count=2) or (0, 0)))
    await runs.get_run(backend.db, id)
    return RunWatch(place)


async def seq_of(last_event_id: LastEventId = None) -> int | None:
    numbers = numbers_of(last_event_id, count=1)
    return numbers[0] if numbers else None


class RunWatch:
    """Turns the news of one run into events, and knows how far it has told them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._progress: tuple[int | None, int | None] = (None, None)

    def tell(self, news: News) -> Iterator[ServerSentEvent]:
        """Both records in the order of their instants, then progress, then the end."""
        for row in merge(news.records, news.logs, key=lambda row: int(row["at"])):
            yield self._tell_state(row) if "seq" in row else self._tell_log(row)
        progress = (news.run["progress_done"], news.run["progress_total"])
        if progress != self._progress:
            self._progress = progress
            yield self._event("progress", {"done": progress[0], "total": progress[1]})
        if is_over(news):
            yield self._event("end", run_view(news.run))

    def _tell_state(self, record: dict[str, Any]) -> ServerSentEvent:
        self.place = Place(record["seq"], self.place.log_id)
        is_cancelling = record["action"] == "run.cancel_requested"
        return self._event("state", view(record) | {"state": CANCELLING if is_cancelling else record["after"]})

    def _tell_log(self, line: dict[str, Any]) -> ServerSentEvent:
        self.place = Place(self.place.seq, line["id"])
        return self._event("log", view(line))

    def _event(self, name: str, data: dict[str, Any]) -> ServerSentEvent:
        return event(name, data, f"{self.place.seq}.{self.place.log_id}")


def is_over(news: News) -> bool:
    return news.run["state"] in TERMINAL and not news.has_more


@router.get("/runs/{id}/events", response_class=EventSourceResponse, responses=PROBLEMS)
async def follow_run(
    id: str, watch: Annotated[RunWatch, Depends(watch_of)], backend: BackendOf, pulse: PulseOf
) -> AsyncIterator[ServerSentEvent]:
    """What happens to a run: `state`, `log` and `progress` events from its beginning on, then `end` with the run."""
    is_going = True
    while is_going:
        news = await _unless_away(watching.news_of_run(backend.db, id, watch.place))
        for told in watch.tell(news) if news else ():
            yield told
        if news and is_over(news):
            return
        is_going = bool(news and news.has_more) or await pulse.beat()


@router.get("/events", response_class=Frames, responses=PROBLEMS)
async def follow_audit(
    seq: Annotated[int | None, Depends(seq_of)],
    backend: BackendOf,
    action: str | None = None,
    tenant: str | None = None,
) -> Response:
    """Every audit record from now on, or from Last-Event-ID on, as an `audit` event; none is left out."""
    return await Frames.begun(_audit_frames(backend.newsroom, seq, Wanted(action, tenant)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records a viewer asks for."""

    action: str | None
    tenant: str | None

    def frames(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """The records as they travel."""
        return b"".join(frame("audit", view(row), str(row["seq"])) for row in rows if self._covers(row))

    def _covers(self, row: Mapping[str, Any]) -> bool:
        return self.action in (None, row["action"]) and self.tenant in (None, row["tenant"])


async def _audit_frames(newsroom: Newsroom, seq: int | None, wanted: Wanted) -> AsyncIterator[bytes | None]:
    async for batch in newsroom.batches(seq):
        yield batch.shown(wanted, wanted.frames)


async def _unless_away(asked: Awaitable[T]) -> T | None:
    """The answer, or None while the database is away: a stream outlives that, and its reader misses nothing."""
    try:
        return await asked
    except StoreUnavailable:
        return None
