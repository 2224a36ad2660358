"""Works on their way to the database's threads and their answers on the way back, to event loops or to waiting threads;
and the hints that tell listeners of a change. Both drivers share it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Transaction, Work

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """How a call ended: with a value, or with an error."""

    value: Any
    error: BaseException | None = None


class Mailbox:
    """Answers for the futures of one event loop, which is woken once for all that have come meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answers: deque[tuple[asyncio.Future[Any], Answer]] = deque()
        self._is_woken = False

    def put(self, future: asyncio.Future[Any], answer: Answer) -> None:
        self._answers.append((future, answer))

    def wake(self) -> None:
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self.loop.call_soon_threadsafe(self._open)
        except RuntimeError:
            self._answers.clear()  # the loop is closed: nobody waits any more

    def _open(self) -> None:
        self._is_woken = False  # first, so that whoever puts from now on wakes the loop again
        while self._answers:
            future, answer = self._answers.popleft()
            if future.done():
                continue
            if answer.error is None:
                future.set_result(answer.value)
            else:
                future.set_exception(answer.error)


_local = threading.local()


def _mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    mailbox: Mailbox | None = getattr(_local, "mailbox", None)
    if mailbox is None or mailbox.loop is not loop:
        mailbox = _local.mailbox = Mailbox(loop)
    return mailbox


class AwaitedCall:
    """A work whose caller awaits `future`. Abandoned when the caller is cancelled before its turn comes."""

    __slots__ = ("_mailbox", "future", "is_patient", "work")
    is_raw = False

    def __init__(self, work: Work[Any], *, is_patient: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.work, self.is_patient = work, is_patient
        self.future: asyncio.Future[Any] = loop.create_future()
        self._mailbox = _mailbox_of(loop)

    @property
    def is_abandoned(self) -> bool:
        return self.future.cancelled()

    def put(self, answer: Answer) -> None:
        self._mailbox.put(self.future, answer)

    def wake(self) -> None:
        self._mailbox.wake()


class BlockingCall:
    """A work whose caller blocks in `result`. `is_raw`: its statements are SQL texts instead of names."""

    __slots__ = ("_answer", "_done", "is_raw", "work")
    is_abandoned = is_patient = False

    def __init__(self, work: Work[Any], *, is_raw: bool = False) -> None:
        self.work, self.is_raw = work, is_raw
        self._done = threading.Event()

    def put(self, answer: Answer) -> None:
        self._answer = answer

    def wake(self) -> None:
        self._done.set()

    def result(self) -> Any:
        self._done.wait()
        if self._answer.error is not None:
            raise self._answer.error
        return self._answer.value


Call: TypeAlias = AwaitedCall | BlockingCall


def run_work(work: Work[Any], transaction: Transaction) -> Answer:
    """Run the work here and now; whatever it raises is the answer."""
    try:
        value = work(transaction)
        transaction.write_closings(transaction)
        return Answer(value)
    except StopIteration as error:  # a future refuses to carry it
        wrapped = RuntimeError("the work raised StopIteration")
        wrapped.__cause__ = error
        return Answer(None, wrapped)
    except BaseException as error:  # noqa: BLE001 - user code; its caller gets the error and records it
        return Answer(None, error)


def answer_all(calls: Iterable[Call], answers: Iterable[Answer]) -> None:
    """Give every call its answer, then wake the callers."""
    calls = list(calls)
    for call, answer in zip(calls, answers, strict=True):
        call.put(answer)
    for call in calls:
        call.wake()


class Order(Enum):
    """What a queue tells its thread besides a call: look around, or end."""

    LOOK = "look"
    END = "end"


class CallQueue:
    """Calls in the order in which they came. Refuses more than `limit` waiting calls, and all after `close`."""

    def __init__(self, name: str, *, limit: int) -> None:
        self._name, self._limit = name, limit
        self._items: SimpleQueue[Call | Order] = SimpleQueue()
        self._is_closed = True
        self._lock = threading.Lock()
        self._busy: set[int] = set()  # threads; adding and discarding are atomic

    @property
    def busy(self) -> int:
        """How many threads are at work on what they took."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many calls no thread has taken yet."""
        return self._items.qsize()

    def open(self) -> None:
        self._is_closed = False

    def put(self, call: Call) -> None:
        """Raises StoreUnavailable when the queue is closed or full."""
        with self._lock:
            if self._is_closed:
                raise self._closed()
            if self._items.qsize() >= self._limit:
                raise self._full()
            self._items.put(call)

    def look(self) -> None:
        """Make the thread that takes from the queue pass through its loop."""
        self._items.put(Order.LOOK)

    def take(self, timeout_seconds: float | None = None) -> Call | Order:
        """The next item; LOOK when none comes in time."""
        thread = threading.get_ident()
        self._busy.discard(thread)
        try:
            item = self._items.get(timeout=timeout_seconds)
        except Empty:
            return Order.LOOK
        if not isinstance(item, Order):
            self._busy.add(thread)
        return item

    def take_waiting(self, limit: int) -> list[Call]:
        """Up to `limit` calls that wait right now; an order ends the list and stays for `take`."""
        calls: list[Call] = []
        while len(calls) < limit:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if isinstance(item, Order):
                self._items.put(item)
                break
            calls.append(item)
        return calls

    def close(self, threads: int) -> None:
        """Refuse new calls; each of `threads` ends once the calls before have had their turn."""
        with self._lock:
            self._is_closed = True
        for _ in range(threads):
            self._items.put(Order.END)

    def reject_rest(self) -> None:
        """Answer what no thread will take any more."""
        rest = self.take_waiting(self._limit)
        answer_all(rest, [Answer(None, self._closed()) for _ in rest])

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._name} is not open; call start() before, and nothing after close()")

    def _full(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._limit} transactions wait for {self._name} already; try again in a second, or submit less at once",
            retry_after_seconds=1.0,
        )


class Hints:
    """The listeners of one process."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[str], None]] = {}
        self._lock = threading.Lock()

    @property
    def are_wanted(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Returns the function that takes the callback away again."""
        key = object()
        with self._lock:
            self._callbacks = {**self._callbacks, key: callback}
        return lambda: self._remove(key)

    def tell(self, topic: str) -> None:
        """Call every listener. A listener that raises is logged and does not keep the others from hearing."""
        for callback in self._callbacks.values():
            try:
                callback(topic)
            except Exception:  # noqa: BLE001 - user code; recorded here
                _log.exception("a listener failed on the hint %r", topic)

    def _remove(self, key: object) -> None:
        with self._lock:
            self._callbacks = {other: callback for other, callback in self._callbacks.items() if other is not key}
