"""Group commit by a pump: what arrives while a flush is under way goes out together with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Gathers items of concurrent callers into batches. No timer: a lone item goes out at once.

    `flush` answers a batch, item by item and in order; an answer that is an exception is raised to its caller.
    `limit` bounds a batch, `in_flight` the batches under way. If `flush` itself raises, all its callers see that.
    """

    def __init__(
        self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]], *, limit: int, in_flight: int
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._free = in_flight
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def ask(self, item: Item) -> Answer:
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """The answer to be. It comes whether or not anybody waits for it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._start_flush()
        return future

    async def close(self) -> None:
        """Waits until everything that was asked is answered."""
        while self._flushes:
            await asyncio.wait(set(self._flushes))

    def _start_flush(self) -> None:
        if self._free and self._waiting:
            self._free -= 1
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            task = asyncio.get_running_loop().create_task(self._run_flush(batch))
            self._flushes.add(task)
            task.add_done_callback(self._end_flush)

    def _end_flush(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        self._free += 1
        if not task.cancelled():
            self._start_flush()

    async def _run_flush(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to every caller
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
