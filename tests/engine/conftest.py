"""What the tests of the engine share: a way to open a platform that is closed whatever happens."""

from __future__ import annotations

import http.server
import socketserver
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from pilothouse import App
from pilothouse.control import checks
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter
from pilothouse.testing import TestPlatform
from tests.engine.post import Hooks, Mailbox, Post, serving

Start = Callable[..., Awaitable[TestPlatform]]


@pytest.fixture
async def start(noon: None) -> AsyncIterator[Start]:
    """Starts platforms for apps; at the end every one of them must have a whole run log."""
    platforms: list[TestPlatform] = []
    async with AsyncExitStack() as stack:

        async def start_one(app: App, **options: object) -> TestPlatform:
            platform = await stack.enter_async_context(TestPlatform(app, **options))  # type: ignore[arg-type]
            platforms.append(platform)
            return platform

        yield start_one
        for platform in platforms:
            broken = [v for v in await checks.check(platform.db, grace_us=10**12) if not v.holds]
            assert not broken


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the test's platforms emit."""
    seen: list[Event] = []
    monkeypatch.setattr("pilothouse.testing.Emitter", lambda: Emitter([seen.append]))
    return seen


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def mail_port(post: Post) -> Iterator[int]:
    yield from serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox), post)


@pytest.fixture
def hook_port(post: Post) -> Iterator[int]:
    yield from serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks), post)
