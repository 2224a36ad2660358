"""A server on a real SQLite file, with one registered agent and its worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from pilothouse.config import Settings, load_settings
from pilothouse.control.runs import Submitter
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from pilothouse.web.server import create_server
from tests.web.documented import documented_client
from tests.web.platform import FakeWorker, agent_card


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(database_url=f"sqlite:///{tmp_path}/test.db?synchronous=normal", max_input_bytes=100_000)


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    db = open_database(settings.database_url)
    db.start()
    migrate(db)
    yield db
    db.close()


@pytest.fixture
async def worker(db: Database) -> FakeWorker:
    worker = FakeWorker(db)
    await worker.start(agent_card())
    return worker


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def app(db: Database, settings: Settings, stopping: asyncio.Event) -> FastAPI:
    return create_server(db, Submitter(db), settings, stopping)


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with documented_client(app) as client:
        yield client
