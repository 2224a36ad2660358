"""Couriers: each carries what is told to one destination, on a thread of its own, out of a bounded queue.

Whoever hands something over never waits. Where a destination is slow or away, the oldest is dropped and counted, and
that is told once until it is well again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import ExportFailing, ExportRecovered

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
IDLE = 5
"""By how much the shares of couriers grow while a process has little to do."""

CLOSE_SECONDS = 2.0
"""How long the end of a process may wait for what is still to be sent."""

_dropped: Counter[str] = Counter()


def dropped_so_far() -> Mapping[str, int]:
    """What this process has dropped, by what it was: spans, runs for MLflow, log lines."""
    return dict(_dropped)


class Undelivered(Exception):
    """A delivery failed; it may be tried again."""


class Refused(Undelivered):
    """The destination does not want this delivery, now or later."""


class TooLarge(Refused):
    """It may want smaller ones."""


@dataclass(frozen=True, slots=True)
class Terms:
    """At most `limit` things wait, and `batch` go at once, the latest after `interval_seconds`. While the process is
    busy, the thread uses at most `cpu_share` of one processor, because the interpreter lets only one thread run at a
    time; otherwise, five times that.
    """

    limit: int
    batch: int
    interval_seconds: float = 0.5
    cpu_share: float = 1.0


class Destination:
    """Where couriers go. `tell` hears once that one of them is in trouble, and once that all are well again."""

    def __init__(self, name: str, tell: Callable[[Event], None]) -> None:
        self._name, self._tell = name, tell
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def fail(self, what: str, reason: str) -> None:
        with self._lock:
            is_first = not self._failing
            self._failing.add(what)
        if is_first:
            self._tell(ExportFailing(what, self._name, reason, _dropped[what]))

    def recover(self, what: str) -> None:
        if what not in self._failing:
            return
        with self._lock:
            self._failing.discard(what)
            is_last = not self._failing
        if is_last:
            self._tell(ExportRecovered(what, self._name, _dropped[what]))


class _Load:
    """How busy the process is."""

    def __init__(self) -> None:
        self._wall, self._used = time.monotonic(), time.process_time()

    def is_high(self) -> bool:
        """Whether it has used more than half a processor since the last call."""
        wall, used = time.monotonic(), time.process_time()
        is_high = used - self._used > (wall - self._wall) / 2
        self._wall, self._used = wall, used
        return is_high


class Courier(Generic[T]):
    """Carries things of one kind. `deliver` sends a batch, or raises Undelivered.

    `weigh` says how many a thing counts for when it is dropped; `hang_up` is called at the end. Both may be set.
    """

    def __init__(
        self, what: str, destination: Destination, deliver: Callable[[Sequence[T]], None], terms: Terms
    ) -> None:
        self._what, self._destination, self._deliver, self._terms = what, destination, deliver, terms
        self.weigh: Callable[[T], int] = lambda _: 1
        self.hang_up: Callable[[], None] = lambda: None
        self._queue: deque[T] = deque()
        self._in_hand: Sequence[T] = ()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._load = _Load()
        _dropped[what] += 0
        self._thread = threading.Thread(target=self._run, name=f"pilothouse-{what}", daemon=True)
        self._thread.start()

    def offer(self, thing: T) -> None:
        """Hands something over. It never waits."""
        queue = self._queue
        if len(queue) >= self._terms.limit:
            self._drop_oldest()
        queue.append(thing)
        if len(queue) >= self._terms.batch and not self._wake.is_set():
            self._wake.set()

    def hurry(self) -> None:
        """From now on nothing is tried again."""
        self._closing.set()
        self._wake.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Sends what is left for so many seconds; the rest is dropped, and told unless the trouble was told before."""
        self.hurry()
        self._thread.join(seconds)
        left = sum(map(self.weigh, (*self._in_hand, *self._queue)))
        if left and self._thread.is_alive():
            _dropped[self._what] += left
            self._destination.fail(self._what, "it did not take everything before the process ended")

    def _drop_oldest(self) -> None:
        try:
            _dropped[self._what] += self.weigh(self._queue.popleft())
        except IndexError:
            return  # the thread was faster

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._terms.interval_seconds)
            self._wake.clear()
            self._send_all()
        self.hang_up()

    def _send_all(self) -> None:
        while self._queue:
            self._in_hand = self._take()
            began = time.thread_time()
            self._send(self._in_hand)
            self._in_hand = ()
            used = time.thread_time() - began
            if self._terms.cpu_share < 1:
                share = self._terms.cpu_share if self._load.is_high() else min(1.0, IDLE * self._terms.cpu_share)
                self._closing.wait(used / share - used)

    def _take(self) -> list[T]:
        taken: list[T] = []
        while self._queue and len(taken) < self._terms.batch:
            try:
                taken.append(self._queue.popleft())
            except IndexError:
                break  # what was there was dropped meanwhile
        return taken

    def _send(self, things: Sequence[T]) -> None:
        """Until it has arrived, was refused, or the process ends."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                self._deliver(things)
            except TooLarge as error:
                return self._send_halves(things, error)
            except Refused as error:
                return self._give_up(things, error)
            except Undelivered as error:
                if self._closing.is_set():
                    return self._give_up(things, error)
                self._destination.fail(self._what, str(error))
                self._closing.wait(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            except Exception as error:  # noqa: BLE001 - a batch that cannot be put into words must not end the thread
                return self._give_up(things, error)
            else:
                return self._destination.recover(self._what)

    def _send_halves(self, things: Sequence[T], error: TooLarge) -> None:
        if len(things) == 1:
            return self._give_up(things, error)
        middle = len(things) // 2
        self._send(things[:middle])
        return self._send(things[middle:])

    def _give_up(self, things: Sequence[T], error: Exception) -> None:
        _dropped[self._what] += sum(map(self.weigh, things))
        self._destination.fail(self._what, str(error) or type(error).__name__)
