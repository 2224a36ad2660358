"""Patience with a database that is away: what a worker has in hand is tried again until the database is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pilothouse.errors import StoreUnavailable

T = TypeVar("T")

PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between tries; the last one repeats."""


def _ignore(_reason: str) -> None:
    pass


async def patiently(attempt: Callable[[], Awaitable[T]], *, on_pause: Callable[[str], None] = _ignore) -> T:
    """The result of `attempt()`, tried for as long as the database is away; other errors are raised."""
    tries = 0
    while True:
        try:
            return await attempt()
        except StoreUnavailable as error:
            on_pause(str(error))
            await asyncio.sleep(PAUSE_SECONDS[min(tries, len(PAUSE_SECONDS) - 1)])
            tries += 1
