"""An event loop whose time is virtual: waiting takes none, and nothing outside of the loop can happen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from pilothouse import clock

EPOCH_US = 1_774_745_970_000_000
"""2026-03-29 00:59:30 UTC: half a minute before the clocks of Europe go forward."""


class Stuck(Exception):
    """Nothing is due any more, and yet somebody waits."""


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """Jumps to the next timer when nothing is ready. `on_tick` is called before each turn."""

    def __init__(self, on_tick: Callable[[], None]) -> None:
        super().__init__()
        self._virtual_seconds = 0.0
        self._on_tick = on_tick
        self._selector = self

    def time(self) -> float:
        return self._virtual_seconds

    def select(self, timeout: float | None) -> list[Any]:
        """In the place of a selector: there are no sockets here."""
        if timeout is None:
            raise Stuck("nothing is due any more, and yet somebody waits")
        self._virtual_seconds += max(0.0, timeout)
        self._on_tick()
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Nobody sleeps in another thread."""


@contextmanager
def repeatable(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Time, ids and chance of the product come from the loop and the seed."""

    def time_ns() -> int:
        return EPOCH_US * 1000 + round(loop.time() * 1_000_000_000)

    kept = vars(clock)["time"], clock._random, clock._last_tick, random.getstate()
    virtual_time = SimpleNamespace(time_ns=time_ns, monotonic=loop.time)
    _set_clock(virtual_time, random.Random(seed), 0)
    random.seed(seed)
    try:
        yield
    finally:
        _set_clock(*kept[:3])
        random.setstate(kept[3])


def _set_clock(time: Any, chance: random.Random, last_tick: int) -> None:
    vars(clock).update(time=time, _random=chance, _last_tick=last_tick)
