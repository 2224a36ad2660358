"""Files and streams that logs are written to. Lines that are not urgent go together: each write lets other threads run,
and whoever writes waits for its next turn.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

FLUSH_SECONDS = 0.05
MOST_LINES = 5_000
"""As many wait at most; whoever logs the next one writes them."""

PIPE_BYTES = 4096
"""PIPE_BUF of Linux: what a pipe takes whole."""

FILE_BYTES = 1 << 18
"""A file that is appended to takes any number whole."""


class Local:
    """Writes lines, in their order. `_put` does the writing, of at most so many bytes unless one line has more."""

    at_once = PIPE_BYTES

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()
        _flusher.add(self)

    def write(self, line: bytes) -> None:
        """At once, with those that wait."""
        self._waiting.append(line)
        self.flush()

    def write_soon(self, line: bytes) -> None:
        """With those that come in the next 50 ms. They are lost if the process is killed meanwhile."""
        self._waiting.append(line)
        if len(self._waiting) >= MOST_LINES:
            self.flush()
        elif not _flusher.is_woken:
            _flusher.wake()

    def flush(self) -> None:
        with self._lock:
            taken = []
            while self._waiting:
                taken.append(self._waiting.popleft())
            for lines in _together(taken, self.at_once) if taken else ():
                self._put(lines)

    def forget(self) -> None:
        """In a process that was forked: the lines are its parent's to write."""
        self._waiting.clear()
        self._lock = threading.Lock()

    def _put(self, lines: bytes) -> None:
        raise NotImplementedError


class _Flusher:
    """A thread that writes what waits. It begins with the first line, and sleeps while there is none."""

    def __init__(self) -> None:
        self.outputs: tuple[weakref.ref[Local], ...] = ()
        self.is_woken = False
        self._event = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, output: Local) -> None:
        self.outputs = (*(each for each in self.outputs if each() is not None), weakref.ref(output))

    def wake(self) -> None:
        self.is_woken = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pilothouse-log", daemon=True)
            self._thread.start()
        self._event.set()

    def begin_anew(self) -> None:
        """In a process that was forked: the thread stayed behind in the parent, and what waits is written there."""
        self.is_woken, self._event, self._thread = False, threading.Event(), None
        for output in self._living():
            output.forget()

    def _living(self) -> list[Local]:
        return [output for each in self.outputs if (output := each()) is not None]

    def _run(self) -> None:
        while self._event.wait():
            time.sleep(FLUSH_SECONDS)
            self._event.clear()
            self.is_woken = False  # before the lines are taken: one that comes now wakes it again
            for output in self._living():
                output.flush()


def _together(lines: list[bytes], at_once: int) -> Iterator[bytes]:
    """As many as go out without lines of other processes between them."""
    together: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > at_once and together:
            yield b"".join(together)
            together, size = [], 0
        together.append(line)
        size += len(line)
    yield b"".join(together)


_flusher = _Flusher()
os.register_at_fork(after_in_child=_flusher.begin_anew)
