"""A real server on a port of its own, and a reader of its server-sent events."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from tests.patience import WAIT_SECONDS


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: Any


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The URL of the application, served by uvicorn as in production."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server._serve([listening]))  # without `serve`'s signal handlers
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = True


@asynccontextmanager
async def reading(url: str, last_event_id: str | None = None, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a stream, once it has begun."""
    headers |= {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with (
        asyncio.timeout(WAIT_SECONDS),
        httpx2.AsyncClient(timeout=WAIT_SECONDS) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _parse(response.aiter_lines())


async def read_until_end(url: str, last_event_id: str | None = None) -> list[Event]:
    async with reading(url, last_event_id) as events:
        return [event async for event in events]


async def _parse(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in lines:
        if not line and fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
