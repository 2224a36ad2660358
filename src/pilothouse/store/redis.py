"""Redis, where one is configured: for what may be lost, and has another way while Redis does not answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from pilothouse.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    import redis.asyncio

PREFIX = "pilothouse:"
ANSWER_SECONDS = 0.5
"""How long an answer may take: what waits for it is the way to a model."""
REST_SECONDS = 1.0
"""How long a Redis that did not answer is not asked, so that nobody waits for it again and again."""


class Redis:
    """A Redis server. All that is asked of it raises StoreUnavailable while it does not answer."""

    def __init__(self, url: str) -> None:
        """`url` is redis://HOST:PORT/NUMBER, rediss:// with TLS, or unix://PATH. Raises ConfigError."""
        try:
            import redis.asyncio
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ConfigError('redis_url needs Redis\'s client: pip install "pilothouse[redis]"') from error
        try:
            self._server: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            raise ConfigError(f"redis_url: {error}") from error
        self._rests_until, self._fault = 0.0, ""

    async def check(self) -> None:
        await self._ask(self._server.ping)

    async def get(self, name: str) -> str | None:
        return cast("str | None", await self._ask(lambda: self._server.get(PREFIX + name)))

    async def keep(self, name: str, text: str, *, seconds: float) -> None:
        await self._ask(lambda: self._server.set(PREFIX + name, text, px=max(1, int(seconds * 1000))))

    async def run(self, script: str, names: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """What a script in Lua answers; it runs as one, with nothing between its reads and writes."""
        keys = [PREFIX + name for name in names]
        return await self._ask(lambda: self._server.register_script(script)(keys=keys, args=list(arguments)))

    async def close(self) -> None:
        await self._server.aclose()

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        from redis.exceptions import RedisError

        if time.monotonic() < self._rests_until:
            raise StoreUnavailable(self._fault)
        try:
            return await question()
        except (RedisError, OSError, TimeoutError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            self._fault = f"Redis does not answer: {error}"
            raise StoreUnavailable(self._fault) from error
