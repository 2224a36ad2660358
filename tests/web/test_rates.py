"""Rate limits over HTTP: per route and caller, with how long to wait."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.config import Settings, load_settings
from pilothouse.control import keys
from pilothouse.control.runs import Submitter
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import ConfigError
from pilothouse.store.database import Database
from pilothouse.web.server import create_server
from tests.web.documented import documented_client

LIMITS = "GET /api/v1/runs=3/h, POST *=2/h"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limits": LIMITS})


async def test_who_asks_too_often_is_told_how_long_to_wait(
    db: Database, settings: Settings, stopping: asyncio.Event
) -> None:
    async with documented_client(create_server(db, Submitter(db), settings, stopping)) as api:
        answers = [await api.get("/api/v1/runs") for _ in range(4)]
        others = [await api.get(path) for path in ("/api/v1/agents", "/health", "/api/v1/overview") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    problem = answers[-1].json()
    assert problem["code"] == "rate_limited"
    assert "the limit is GET /api/v1/runs=3/h; try again in 1200 s" in problem["detail"]
    assert answers[-1].headers["Retry-After"] == "1200"
    assert {answer.status_code for answer in others} == {200}


async def test_each_key_has_its_own(db: Database, settings: Settings, stopping: asyncio.Event) -> None:
    tokens = [await token(db, name) for name in ("one", "two")]

    async with documented_client(create_server(db, Submitter(db), settings, stopping)) as api:
        statuses = [
            (await api.get("/api/v1/runs", headers={"Authorization": f"Bearer {token}"})).status_code
            for token in tokens
            for _ in range(4)
        ]

    assert statuses == [200, 200, 200, 429] * 2


async def token(db: Database, name: str) -> str:
    key = await keys.create_key(db, name, KeyRole.OPERATOR, tenant=None, expires_at=None, principal="test")
    return key.text


def test_a_limit_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"rate_limits.*'fast' is not METHOD PATH=COUNT/UNIT|'fast' is not METHOD"):
        load_settings(rate_limits="fast")
