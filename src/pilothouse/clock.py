"""The only source of time and identity: the system's clock, a clock that tests move by hand, and new ids.

Instants are integer microseconds since the epoch, UTC. Leases and everything else that several processes compare follow
the database's clock instead (`:now` in a statement), unless the clock is frozen.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What tells the time: `now_us` of the day, `monotonic` for durations, in seconds."""

    @property
    def frozen(self) -> bool: ...

    def now_us(self) -> int: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The clock of the machine."""

    frozen = False

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class FrozenClock:
    """A clock that stands still until `advance` moves it. Safe to share between threads."""

    frozen = True

    def __init__(self, start_us: int) -> None:
        self._start_us = self._now_us = start_us
        self._lock = threading.Lock()

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return (self._now_us - self._start_us) / 1_000_000

    def advance(self, *, seconds: float) -> None:
        """Move forward. `seconds` may not be negative: time does not run backwards."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} seconds")
        with self._lock:
            self._now_us += round(seconds * 1_000_000)


def to_datetime(us: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return _EPOCH + timedelta(microseconds=us)


def from_datetime(moment: datetime) -> int:
    """The instant of an aware datetime. Raises ValueError for a naive one, whose zone nobody knows."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write it with an offset or a Z")
    return (moment - _EPOCH) // _MICROSECOND


def isoformat(us: int) -> str:
    """The instant as RFC 3339 text with six decimals and a Z."""
    return to_datetime(us).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_isoformat(text: str) -> int | None:
    """The instant of RFC 3339 text; None where it is none, or says no time zone."""
    try:
        return from_datetime(datetime.fromisoformat(text))
    except ValueError:
        return None


def first_id(us: int) -> str:
    """An id that comes before every one that `new_id` makes from that instant on, and after those made before."""
    milliseconds = f"{us // 1000:012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7000-8000-000000000000"


# A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 12 bits of their fraction (method 3 of section 6.2), then 62 random
# bits. The 60 bits of time count ticks of 1/4096 ms; a tick that was used already is passed by, so ids always ascend.
_TICK = 4096
_VERSION = 7 << 76
_VARIANT = 2 << 62

# Not the module's own generator: user code that seeds `random` must not make ids repeat.
_random = Random()
_lock = threading.Lock()
_last_tick = 0
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A UUIDv7 in its usual 36 characters; within a process each is greater than the one before."""
    global _last_tick
    with _lock:
        tick = time.time_ns() * _TICK // 1_000_000
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
        noise = _random.getrandbits(62)
    text = "%032x" % ((tick >> 12) << 80 | _VERSION | (tick & 0xFFF) << 64 | _VARIANT | noise)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
