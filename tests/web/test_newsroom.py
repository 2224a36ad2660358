"""The newsroom: whoever joins, resumes or is slow gets every record once and in order, for one look at the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilothouse.control import audit
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.web import newsroom as newsrooms
from pilothouse.web.newsroom import Newsroom
from tests.patience import WAIT_SECONDS


@pytest.fixture
def db(database: Database) -> Database:
    return database


@pytest.fixture
async def stopping() -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    yield stopping
    stopping.set()


@pytest.fixture
def newsroom(db: Database, stopping: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> Newsroom:
    monkeypatch.setattr(newsrooms, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(newsrooms, "POLL_SECONDS", 0.02)
    return Newsroom(db, stopping)


async def write(db: Database, count: int) -> None:
    for n in range(count):
        entry = audit.entry("thing.done", "thing", str(n), principal="test")
        await db.transaction(lambda tx, entry=entry: audit.record(tx, [entry]))  # type: ignore[misc]


async def read(newsroom: Newsroom, after: int | None, until: int) -> list[int]:
    """The numbers of the records behind `after`, up to `until`."""
    seen: list[int] = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for batch in newsroom.batches(after):
            seen += [row["seq"] for row in batch.rows]
            if batch.seq >= until:
                break
    return seen


async def test_every_viewer_gets_every_record_once_wherever_it_resumes(
    db: Database, newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newsrooms, "PAGE", 3)
    monkeypatch.setattr(newsrooms, "KEPT_RECORDS", 5)  # so that most come from the database first
    before = await audit.last_seq(db)
    await write(db, 10)
    live = asyncio.create_task(read(newsroom, None, before + 20))
    late = [asyncio.create_task(read(newsroom, before + n, before + 20)) for n in (0, 4, 9, 10)]
    await asyncio.sleep(0)
    await asyncio.wait_for(_begun(newsroom), WAIT_SECONDS)
    await write(db, 10)

    everything = [row["seq"] for row in reversed(await audit.tail(db, limit=20))]
    assert await live == everything[10:]
    assert [await each for each in late] == [everything, everything[4:], everything[9:], everything[10:]]


async def _begun(newsroom: Newsroom) -> None:
    async for _ in newsroom.batches(None):
        return


async def test_what_many_viewers_ask_for_is_made_once_and_read_once(
    db: Database, newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    looks: list[int] = []
    real = audit.Follower.next

    async def counted(follower: audit.Follower, *, limit: int = 500) -> list[Any]:
        rows = await real(follower, limit=limit)
        looks.extend(row["seq"] for row in rows)
        return rows

    monkeypatch.setattr(audit.Follower, "next", counted)

    def show(rows: Any) -> int:
        made.append(len(rows))
        return len(rows)

    async def view() -> int:
        shown = 0
        async for batch in newsroom.batches(None):
            if batch.rows:
                shown += batch.shown("all", show)
            if shown == 5:
                return shown
        return shown

    viewers = [asyncio.create_task(view()) for _ in range(20)]
    await asyncio.wait_for(_begun(newsroom), WAIT_SECONDS)
    await asyncio.sleep(0)
    await write(db, 5)

    async with asyncio.timeout(WAIT_SECONDS):
        assert [await viewer for viewer in viewers] == [5] * 20
    assert sum(made) == 5
    assert len(looks) == 5


async def test_an_outage_of_the_database_is_waited_out(
    db: Database, newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_asked = audit.Follower.next, asyncio.Event()

    async def away(follower: audit.Follower, *, limit: int = 500) -> list[Any]:
        is_asked.set()
        raise StoreUnavailable("gone")

    before = await audit.last_seq(db)
    monkeypatch.setattr(audit.Follower, "next", away)
    reading = asyncio.create_task(read(newsroom, before, before + 2))
    async with asyncio.timeout(WAIT_SECONDS):
        await is_asked.wait()
    await write(db, 2)
    monkeypatch.setattr(audit.Follower, "next", real)

    assert len(await reading) == 2
