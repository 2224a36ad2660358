"""Daemon threads for plain functions: one that never returns cannot keep the process from exiting."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

IDLE_SECONDS = 30.0
MAX_IDLE = 64

_Call = tuple[Callable[[], Any], "Future[Any]"]


class Threads:
    """Runs functions in threads that are reused while calls keep coming.

    There are as many threads as calls under way; callers bound those by their slots.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The function's result; it runs with a copy of the caller's context variables.

        Cancelling the wait does not stop the function: Python cannot stop a thread.
        """
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        context = contextvars.copy_context()
        future: Future[Any] = Future()
        with self._lock:
            has_idle = self._idle > 0
            self._idle -= has_idle
        self._calls.put((lambda: context.run(function, *args, **kwargs), future))
        if not has_idle:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            try:
                call, future = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if self._retire():
                    return
                continue
            _answer(call, future)
            with self._lock:
                self._idle += 1

    def _retire(self) -> bool:
        """An idle thread may leave only while no caller counts on it."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
                return True
            return False


def _answer(call: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whatever user code raises belongs to its caller
        future.set_exception(error)
    else:
        future.set_result(result)
