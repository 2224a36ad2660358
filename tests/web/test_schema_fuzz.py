"""Whatever the OpenAPI document allows, and much that it does not, is answered: never with a failure of ours."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from pilothouse.config import load_settings
from pilothouse.control import agents
from pilothouse.control.runs import Submitter
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from pilothouse.web.server import create_server
from tests.web.platform import agent_card

HERE = {"Host": "127.0.0.1"}
EXAMPLES = 60
STREAMS = "/events$"
"""They go on until the client leaves."""


@pytest.fixture(scope="module")
def fuzz_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        db = open_database(f"sqlite:///{Path(folder) / 'fuzz.db'}?synchronous=normal")
        db.start()
        migrate(db)
        db.transaction_blocking(lambda tx: agents.register(tx, [agent_card("hello")], principal="test"))
        yield db
        db.close()


@pytest.fixture
def schema(fuzz_database: Database) -> Iterator[schemathesis.schemas.BaseSchema]:
    logging.disable(logging.CRITICAL)
    app = create_server(fuzz_database, Submitter(fuzz_database), load_settings(), asyncio.Event())
    yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HERE).exclude(path_regex=STREAMS)
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_no_request_makes_the_server_fail(schema: schemathesis.schemas.BaseSchema) -> None:
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 25

    statuses = Counter[int]()
    for operation in operations:
        fuzz(operation, statuses)
    assert {200, 404, 422} <= statuses.keys(), "it meets more than the door"


def fuzz(operation: APIOperation[Any, Any, Any, Any], statuses: Counter[int]) -> None:
    @given(operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def answers(case: Case[Any]) -> None:
        answered = case.call(headers=HERE)
        statuses[answered.status_code] += 1
        assert answered.status_code < 500, (case.as_curl_command(), answered.content)

    answers()
