"""Buckets in Redis: the same rule as in the database, in one round trip and without a commit."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.control.buckets import Block, Buckets, Wanted
from pilothouse.domain.buckets import burst_us, cost_us
from pilothouse.domain.lanes import Lane
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.store.redis import Redis

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function keep(key, due)
  if due > now then redis.call('SET', key, string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
  else redis.call('DEL', key) end
end
"""
"""The server's clock in microseconds, and a bucket that is forgotten once it is whole."""

TAKE = (
    NOW
    + """
local burst, longest, after = tonumber(ARGV[1]), 0, {}
for i, key in ipairs(KEYS) do
  local cost = tonumber(ARGV[i + 1])
  local start = math.max(tonumber(redis.call('GET', key) or 0), now)
  longest = math.max(longest, start + math.min(cost, burst) - now - burst)
  after[i] = start + cost
end
if longest <= 0 then for i, key in ipairs(KEYS) do keep(key, after[i]) end end
return longest
"""
)

GIVE_BACK = (
    NOW
    + """
for i, key in ipairs(KEYS) do
  keep(key, math.max(tonumber(redis.call('GET', key) or 0), now) - tonumber(ARGV[i]))
end
"""
)

BLOCK = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
"""

BLOCKED = "return {redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1]) or ''}"


class RedisBuckets(Buckets):
    """Buckets in Redis; those in the database while it does not answer. What Redis forgets is a whole bucket."""

    def __init__(self, db: Database, redis: Redis) -> None:
        super().__init__(db)
        self._redis = redis

    async def blocked(self, name: str) -> Block | None:
        try:
            left_ms, reason = await self._redis.run(BLOCKED, [f"block:{name}"], [])
        except StoreUnavailable:
            return await super().blocked(name)
        return Block(left_ms / 1000, reason) if left_ms > 0 else None

    async def take_now(self, wanted: Sequence[Wanted], lane: Lane) -> int:
        costs = [cost_us(bucket, units) for bucket, units in wanted]
        try:
            return int(await self._redis.run(TAKE, _names(wanted), [burst_us(lane), *costs]))
        except StoreUnavailable:
            return await super().take_now(wanted, lane)

    async def give_back(self, returned: Sequence[Wanted]) -> None:
        costs = [cost_us(bucket, units) for bucket, units in returned]
        try:
            await self._redis.run(GIVE_BACK, _names(returned), costs)
        except StoreUnavailable:
            await super().give_back(returned)

    async def block(self, name: str, reason: str, *, seconds: float) -> None:
        try:
            await self._redis.run(BLOCK, [f"block:{name}"], [reason, max(1, int(seconds * 1000))])
        except StoreUnavailable:
            await super().block(name, reason, seconds=seconds)


def _names(wanted: Sequence[Wanted]) -> list[str]:
    """With a hash tag: a cluster keeps buckets that are taken from together in one place."""
    return [f"{{bucket}}:{bucket.name}" for bucket, _ in wanted]
