"""Model answers that are kept in Redis, which forgets them by itself when their time is over."""

from __future__ import annotations

from pilothouse.control.model_answers import ModelAnswers
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.store.redis import Redis


class RedisAnswers(ModelAnswers):
    """The kept answers in Redis; those in the database while it does not answer."""

    def __init__(self, db: Database, redis: Redis) -> None:
        super().__init__(db)
        self._redis = redis

    async def find(self, tenant: str, question: str) -> str | None:
        try:
            return await self._redis.get(_name(tenant, question))
        except StoreUnavailable:
            return await super().find(tenant, question)

    async def keep(self, tenant: str, question: str, answer: str, *, seconds: float) -> None:
        try:
            await self._redis.keep(_name(tenant, question), answer, seconds=seconds)
        except StoreUnavailable:
            await super().keep(tenant, question, answer, seconds=seconds)


def _name(tenant: str, question: str) -> str:
    return f"answer:{tenant}:{question}"
