"""A worker and a scheduler of this process, as `pilothouse up` has them, and what they log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pilothouse import App
from pilothouse.config import load_settings
from pilothouse.control import runs
from pilothouse.control.runs import Request
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import NotFound
from pilothouse.platform import Platform
from pilothouse.store.migrations import migrate
from pilothouse.telemetry.logs import configure_logs, flush_logs
from tests.patience import WAIT_SECONDS


class Working:
    """The platform, and the log that it writes."""

    def __init__(self, platform: Platform, log: Path) -> None:
        self.platform = platform
        self._log = log

    @property
    def lines(self) -> list[dict[str, Any]]:
        flush_logs()
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]

    async def submit(self, agent: str, traceparent: str | None = None, **input: Any) -> str:
        """Once the worker has registered its agents."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    request = Request(agent, input, principal="test", traceparent=traceparent)
                    return (await self.platform.submitter.submit(request)).id
                except NotFound:
                    await asyncio.sleep(0.01)

    async def ended(self, run_id: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                row = await runs.get_run(self.platform.db, run_id)
                if row["state"] in TERMINAL:
                    return row
                await asyncio.sleep(0.01)


async def until(look: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := look()):  # noqa: ASYNC110 - other threads are looked at
            await asyncio.sleep(0.01)
    return found


@asynccontextmanager
async def working(app: App, folder: Path, **settings: Any) -> AsyncIterator[Working]:
    """Everything is sent when this is left."""
    log = folder / "log.jsonl"
    log.touch()
    chosen = load_settings(database_url=f"sqlite:///{folder}/test.db?synchronous=normal", **settings)
    configure_logs("debug", "json", f"file:{log}")
    stop = asyncio.Event()
    try:
        async with Platform(chosen, app, frozenset({"worker", "scheduler"})) as platform:
            await asyncio.to_thread(migrate, platform.db)
            serving = asyncio.create_task(platform.serve(stop))
            try:
                yield Working(platform, log)
            finally:
                stop.set()
                await serving
    finally:
        configure_logs()
