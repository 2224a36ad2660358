"""The receiver of a webhook that never answers, drips, hangs up or refuses without end: its delivery ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pilothouse.engine import webhooks as delivery
from pilothouse.errors import FatalError, RunError
from tests.patience import WAIT_SECONDS

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request and stays silent until the caller has gone."""
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header, and then a byte from time to time: no single wait is long."""
    writer.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    while True:
        writer.write(b"no, " * 1000)
        await writer.drain()


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def receiver(serve: Serve) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/hook"
    finally:
        server.close()


@pytest.mark.parametrize("serve", [never, drip, hang_up])
async def test_a_delivery_does_not_wait_for_ever(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.3)
    async with receiver(serve) as url, asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(RunError) as raised:
            await delivery._post(url, "{}", {})
    assert not isinstance(raised.value, FatalError), "it is worth another attempt"


async def test_a_receiver_that_wants_no_more_ends_the_delivery() -> None:
    async with receiver(gone) as url:
        with pytest.raises(FatalError, match="410: it wants no more"):
            await delivery._post(url, "{}", {})


async def test_a_long_refusal_is_not_read_to_its_end() -> None:
    async with receiver(endless) as url, asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(RunError, match="the receiver answered 500: no, no, no, ") as raised:
            await delivery._post(url, "{}", {})
    assert len(str(raised.value)) < 300
