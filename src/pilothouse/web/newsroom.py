"""The newsroom: one reader of the audit for all streams of a process. What it has read it keeps for a while, so that a
viewer who resumes, or is slow, is served from there; who comes from further back is served from the database first.

What a batch of records looks like to a viewer is made once for all who ask for the same. So many viewers cost the
database what one does, and this process little more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pilothouse.control import Database, audit
from pilothouse.errors import StoreUnavailable

GATHER_SECONDS = 0.2
"""The least time between two looks, so that a storm of records comes in few batches."""

POLL_SECONDS = 0.5
PAGE = 1000
KEPT_RECORDS = 20_000

Shown = TypeVar("Shown")


class Batch:
    """Records that became final together, oldest first. `seq`: everything up to there has been told with it."""

    def __init__(self, seq: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.seq = seq
        self.rows = rows
        self._shown: dict[object, object] = {}

    def shown(self, key: object, show: Callable[[Sequence[Mapping[str, Any]]], Shown]) -> Shown:
        """What `show` makes of the records, made once for all who give the same key."""
        if key not in self._shown:
            self._shown[key] = show(self.rows)
        return self._shown[key]  # type: ignore[return-value]  # a key always stands for one kind of showing

    def after(self, seq: int) -> Batch:
        """The records behind `seq`."""
        if not self.rows or self.rows[0]["seq"] > seq:
            return self
        return Batch(self.seq, [row for row in self.rows if row["seq"] > seq])


class Newsroom:
    """Reads only while somebody listens. `stopping` ends all streams."""

    def __init__(self, db: Database, stopping: asyncio.Event) -> None:
        self._db = db
        self._stopping = stopping
        self._readers: set[asyncio.Event] = set()
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._kept: deque[Batch] = deque()
        self._kept_records = 0
        self._begins_at = 0
        """All final records behind this number are kept."""

    async def batches(self, after: int | None) -> AsyncIterator[Batch]:
        """Every record behind number `after`, or from now on, in batches, until the server stops.

        The first batch comes at once and is empty: it says from where on records are told. So are those that come when
        nothing happens.
        """
        woken = asyncio.Event()
        self._readers.add(woken)
        try:
            await self._start()
            seq = self._seq if after is None else after
            yield Batch(seq, [])
            while not self._stopping.is_set():
                woken.clear()
                async for batch in self._behind(seq):
                    seq = batch.seq
                    yield batch
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await woken.wait()
                        continue
                yield Batch(seq, [])
        finally:
            self._readers.discard(woken)

    @property
    def _seq(self) -> int:
        return self._kept[-1].seq if self._kept else self._begins_at

    async def _behind(self, seq: int) -> AsyncIterator[Batch]:
        """What is behind `seq` now: from the database as far as it is not kept any more."""
        if seq < self._begins_at:
            follower = audit.Follower(self._db, after=seq)
            while seq < self._begins_at:
                rows = await _unless_away(follower)
                if rows is None:
                    return
                seq = follower.seq
                yield Batch(seq, rows)
        for batch in list(self._kept):
            if batch.seq > seq:
                yield batch.after(seq)

    async def _start(self) -> None:
        async with self._starting:
            if self._reading is None or self._reading.done():
                self._begins_at = await audit.last_seq(self._db)
                self._kept.clear()
                self._kept_records = 0
                self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Ends when nobody listens any more."""
        follower = audit.Follower(self._db, after=self._begins_at)
        hinted, loop = asyncio.Event(), asyncio.get_running_loop()
        stop_listening = self._db.listen(lambda topic: _hint(loop, hinted))
        try:
            while self._readers and not self._stopping.is_set():
                hinted.clear()
                rows = await _unless_away(follower)
                if rows:
                    self._keep(Batch(follower.seq, rows))
                if rows and len(rows) == PAGE:
                    continue
                await asyncio.sleep(GATHER_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await hinted.wait()
        finally:
            stop_listening()

    def _keep(self, batch: Batch) -> None:
        self._kept.append(batch)
        self._kept_records += len(batch.rows)
        while self._kept_records > KEPT_RECORDS:
            gone = self._kept.popleft()
            self._kept_records -= len(gone.rows)
            self._begins_at = gone.seq
        for woken in self._readers:
            woken.set()


async def _unless_away(follower: audit.Follower) -> list[dict[str, Any]] | None:
    """The next records, or None while the database is away: a stream outlives that, and misses nothing."""
    try:
        return await follower.next(limit=PAGE)
    except StoreUnavailable:
        return None


def _hint(loop: asyncio.AbstractEventLoop, hinted: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(hinted.set)
