"""Server-sent events: what wakes a stream, where it resumes, and how an event is written.

Hints of the database only shorten the wait; a stream looks for itself at least every half second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Self

import orjson
from fastapi import Depends, Header
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, ServerSentEvent

from pilothouse.errors import FieldError
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import MAX_INTEGER
from pilothouse.web.problems import invalid

POLL_SECONDS = 0.5
PING_SECONDS = 15.0
SPACING_SECONDS = 0.05
"""The least time between two looks of one stream, however many hints come."""

LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Resume after this event.")]


class Pulse:
    """Tells one stream when to look again."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._hinted = asyncio.Event()
        self._looked_at = 0.0

    def hint(self) -> None:
        self._hinted.set()

    async def beat(self) -> bool:
        """Waits until there may be something new; False once the server stops."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._looked_at + SPACING_SECONDS - now))
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._hinted.wait()
        except TimeoutError:
            pass
        self._hinted.clear()
        self._looked_at = asyncio.get_running_loop().time()
        return not self._stopping.is_set()


async def pulse_of(backend: BackendOf) -> AsyncIterator[Pulse]:
    """A pulse that listens to the database as long as the request lasts."""
    pulse = Pulse(backend.stopping)
    loop = asyncio.get_running_loop()
    stop_listening = backend.db.listen(lambda topic: _hint(loop, pulse))
    try:
        yield pulse
    finally:
        stop_listening()


PulseOf = Annotated[Pulse, Depends(pulse_of)]


def _hint(loop: asyncio.AbstractEventLoop, pulse: Pulse) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pulse.hint)


def event(name: str, data: Any, id: str) -> ServerSentEvent:
    return ServerSentEvent(event=name, id=id, raw_data=orjson.dumps(data).decode())


class Frames(StreamingResponse):
    """A stream of events that are bytes already; `None` stands for a moment in which nothing came."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[bytes | None], status_code: int = 200) -> None:
        super().__init__(
            _with_pings(frames), status_code, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )

    @classmethod
    async def begun(cls, frames: AsyncIterator[bytes | None]) -> Self:
        """With its first frame in hand, so that whoever has the head of the answer misses nothing from then on."""
        return cls(_behind(await anext(frames), frames))


async def _behind(first: bytes | None, frames: AsyncIterator[bytes | None]) -> AsyncIterator[bytes | None]:
    yield first
    async for frame in frames:
        yield frame


async def _with_pings(frames: AsyncIterator[bytes | None]) -> AsyncIterator[bytes]:
    """A comment now and then, so that what lies between does not close a silent stream."""
    told_at = asyncio.get_running_loop().time()
    async for frame in frames:
        now = asyncio.get_running_loop().time()
        if frame:
            yield frame
            told_at = now
        elif now - told_at > PING_SECONDS:
            yield KEEPALIVE_COMMENT
            told_at = now


def frame(name: str, data: Any, id: str) -> bytes:
    """One event as it travels."""
    return b"event: %s\ndata: %s\nid: %s\n\n" % (name.encode(), orjson.dumps(data), id.encode())


def numbers_of(last_event_id: str | None, *, count: int) -> tuple[int, ...] | None:
    """The `count` numbers, separated by dots, of a Last-Event-ID. Raises InvalidInput for anything else."""
    if last_event_id is None:
        return None
    parts = last_event_id.split(".")
    if len(parts) != count or not all(part.isascii() and part.isdecimal() for part in parts):
        raise _foreign_id(last_event_id)
    numbers = tuple(int(part) for part in parts)
    if max(numbers) > MAX_INTEGER:
        raise _foreign_id(last_event_id)
    return numbers


def _foreign_id(last_event_id: str) -> Exception:
    message = f"{last_event_id[:50]!r} is no id of this stream; leave the header out to begin anew"
    return invalid([FieldError("Last-Event-ID", message)])
