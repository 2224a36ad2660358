"""The scheduler: runs the chores, each by whoever holds its named lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pilothouse.clock import new_id
from pilothouse.control import leases
from pilothouse.errors import StoreError, StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.telemetry.events import ChoreFailed, Emitter

LEASE_INTERVALS = 5
"""A chore's lease lasts this many of its intervals, and one second at least."""


@dataclass(frozen=True, slots=True)
class Chore:
    """A small loop of its own. `run` is called every `interval_seconds` by the process that leads it.

    `on_outage` is called each time the database is away, or takes `slow_seconds` or more to answer.
    """

    name: str
    interval_seconds: float
    run: Callable[[], Awaitable[None]]
    on_outage: Callable[[], None] = lambda: None
    slow_seconds: float = float("inf")

    @property
    def lease_us(self) -> int:
        return int(max(1.0, self.interval_seconds * LEASE_INTERVALS) * 1_000_000)


class Scheduler:
    """Runs chores side by side until it is stopped; a chore that fails is tried again at its next interval."""

    def __init__(self, db: Database, chores: Sequence[Chore], emitter: Emitter) -> None:
        self._db = db
        self._chores = chores
        self._emitter = emitter
        self._holder = new_id()

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._loop(chore, stop))

    async def _loop(self, chore: Chore, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._turn(chore)
            try:
                async with asyncio.timeout(chore.interval_seconds):
                    await stop.wait()
            except TimeoutError:
                continue
        await self._resign(chore)

    async def _turn(self, chore: Chore) -> None:
        asked = self._db.clock.monotonic()
        try:
            is_leading = await leases.hold(self._db, chore.name, self._holder, lease_us=chore.lease_us)
            if self._db.clock.monotonic() - asked >= chore.slow_seconds:
                chore.on_outage()
            if is_leading:
                await chore.run()
        except StoreUnavailable as error:
            chore.on_outage()
            self._emitter.emit(ChoreFailed(chore.name, str(error)))
        except Exception as error:  # noqa: BLE001 - a service loop survives what a chore runs into, and says so
            self._emitter.emit(ChoreFailed(chore.name, f"{type(error).__name__}: {error}", error))

    async def _resign(self, chore: Chore) -> None:
        try:
            await leases.release(self._db, chore.name, self._holder)
        except StoreError:
            return  # it runs out by itself
