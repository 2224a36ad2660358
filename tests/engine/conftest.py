"""What the tests of the engine share: a way to open a platform that is closed whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from pilothouse import App
from pilothouse.control import checks
from pilothouse.testing import TestPlatform

Start = Callable[..., Awaitable[TestPlatform]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
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
