"""Redis in the place of the database for limits and kept answers, and the database in its place while it is away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.config import Settings, load_settings
from pilothouse.control import readiness
from pilothouse.control.buckets import Block, Buckets
from pilothouse.control.model_answers import ModelAnswers
from pilothouse.control.redis_answers import RedisAnswers
from pilothouse.control.redis_buckets import RedisBuckets
from pilothouse.domain.buckets import MINUTE_US, Bucket, burst_us, cost_us
from pilothouse.domain.lanes import Lane
from pilothouse.errors import ConfigError, StoreUnavailable
from pilothouse.platform import make_gateway
from pilothouse.store.database import Database
from pilothouse.store.redis import REST_SECONDS, Redis
from pilothouse.telemetry.events import Emitter
from tests.crash.processes import eventually
from tests.llm.conftest import Serving, ask, begin_runs
from tests.llm.redis_server import RedisServer

SLACK_US = 5_000_000
"""What a bucket may have filled up while a test ran: time here is the server's own."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def connected(server: RedisServer) -> AsyncIterator[Redis]:
    redis = Redis(server.url)
    try:
        yield redis
    finally:
        await redis.close()


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with connected(server) as redis:
        yield redis


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    per_minute=st.integers(60, 10_000),
    requests=st.lists(st.tuples(st.integers(1, 4_000), st.sampled_from(Lane)), max_size=12),
)
def test_no_more_than_a_bucket_goes_out(
    server: RedisServer, tmp_path: Path, per_minute: int, requests: list[tuple[int, Lane]]
) -> None:
    bucket = Bucket(uuid.uuid4().hex, per_minute)

    async def go() -> None:
        async with connected(server) as redis:
            buckets = RedisBuckets(_no_database(tmp_path), redis)
            taken_us = 0
            for units, lane in requests:
                wait_us = await buckets.take_now([(bucket, units)], lane)
                expected = taken_us + min(cost_us(bucket, units), burst_us(lane)) - burst_us(lane)
                assert wait_us <= max(0, expected)
                if expected > SLACK_US:
                    assert wait_us > 0
                taken_us += cost_us(bucket, units) if wait_us == 0 else 0

    asyncio.run(go())


def _no_database(folder: Path) -> Database:
    """One that was never started: whatever asks it fails."""
    from pilothouse.store.database import open_database

    return open_database(f"sqlite:///{folder / 'never.db'}")


async def test_all_or_nothing_is_taken_and_what_comes_back_can_be_taken_again(redis: Redis, tmp_path: Path) -> None:
    buckets = RedisBuckets(_no_database(tmp_path), redis)
    requests, tokens = Bucket("requests", 10), Bucket("tokens", 100)

    assert await buckets.take([(requests, 1), (tokens, 100)], Lane.CRITICAL) == 0
    wait_us = await buckets.take([(requests, 9), (tokens, 50)], Lane.CRITICAL)
    assert MINUTE_US / 2 - SLACK_US < wait_us <= MINUTE_US / 2
    await buckets.give_back([(tokens, 50)])

    assert await buckets.take([(requests, 9), (tokens, 50)], Lane.CRITICAL) == 0
    assert await buckets.take([(requests, 1)], Lane.CRITICAL) > 0


async def test_many_workers_at_once_take_no_more_than_there_is(server: RedisServer, tmp_path: Path) -> None:
    bucket = Bucket("b", 25)
    async with connected(server) as one, connected(server) as other:
        workers = [RedisBuckets(_no_database(tmp_path), redis) for redis in (one, other)]

        waits = await asyncio.gather(*[workers[n % 2].take([(bucket, 1)], Lane.CRITICAL) for n in range(60)])

    assert waits.count(0) in (25, 26)


async def test_the_longest_block_stands_for_all_workers(redis: Redis, server: RedisServer, tmp_path: Path) -> None:
    one = RedisBuckets(_no_database(tmp_path), redis)
    await one.block("m:key", "rate_limited", seconds=600)
    await one.block("m:key", "wrong_key", seconds=1)

    async with connected(server) as connection:
        other = RedisBuckets(_no_database(tmp_path), connection)
        block = await other.blocked("m:key")
        assert isinstance(block, Block)
        assert (590 < block.seconds <= 600, block.reason) == (True, "rate_limited")
        assert await other.blocked("m:other") is None


async def test_the_database_stands_in_while_redis_is_away(
    redis: Redis, server: RedisServer, database: Database
) -> None:
    buckets, answers, bucket = RedisBuckets(database, redis), RedisAnswers(database, redis), Bucket("b", 10)
    server.stop()

    assert await buckets.take([(bucket, 10)], Lane.CRITICAL) == 0
    assert await buckets.take([(bucket, 10)], Lane.CRITICAL) > 0
    await buckets.give_back([(bucket, 10)])
    await buckets.block("m", "rate_limited", seconds=60)
    await answers.keep("t", "q", "a", seconds=60)

    assert await Buckets(database).take([(bucket, 10)], Lane.CRITICAL) == 0
    assert (await buckets.blocked("m"), await answers.find("t", "q")) != (None, None)
    assert await ModelAnswers(database).find("t", "q") == "a"
    checks = await readiness.readiness(database, load_settings(database_url=database.url), redis)
    assert (checks["redis"].status, "does not answer" in checks["redis"].detail) == ("degraded", True)


async def test_redis_is_asked_again_once_it_is_back(redis: Redis, server: RedisServer) -> None:
    server.stop()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await redis.check()
    rested = time.monotonic() + REST_SECONDS
    server.start()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await redis.check()

    await asyncio.to_thread(eventually, lambda: time.monotonic() > rested, "Redis's rest to be over")
    await redis.check()


async def test_two_workers_pay_one_answer_once(redis: Redis, provider: Serving, database: Database) -> None:
    routes = {"default": {"models": ["openai:gpt-5-mini"], "cache_seconds": 60}}
    told = Settings.model_validate({"routes": routes})
    begin_runs(database)
    gateways = [make_gateway(database, told, Emitter([]), redis=redis) for _ in range(2)]

    outputs = []
    for gateway in gateways:
        assert gateway is not None
        outputs.append((await gateway.answer(ask("the same"))).response.text)
        await gateway.close()

    assert (outputs[0], len(provider.asked)) == (outputs[1], 1)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        Redis(url)
