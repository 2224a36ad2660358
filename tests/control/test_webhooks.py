"""Webhooks: whatever ends a run queues one delivery, in the same transaction, and what cannot be told is refused."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse import payloads
from pilothouse.control import cancels, checks
from pilothouse.control.runs import DELIVERY_AGENT
from pilothouse.errors import InvalidInput
from pilothouse.store.database import Database, Row
from tests.control.steps import (
    actions_of,
    card,
    claim,
    ended,
    reap,
    register,
    request,
    settle,
    start_worker,
    submit,
    submit_all,
)

URL = "https://user:word@example.com/hook"


@pytest.fixture
def telling(database: Database) -> Database:
    register(database, card("echo", max_losses=1), card(DELIVERY_AGENT))
    return database


def deliveries(db: Database) -> list[Row]:
    return db.administer(lambda tx: tx.fetch_all(f"SELECT * FROM runs WHERE agent = '{DELIVERY_AGENT}' ORDER BY id"))


@pytest.mark.parametrize(("ending", "count"), [("succeeded", 1), ("fatal", 1), ("cancelled", 1), ("snoozed", 0)])
def test_an_end_queues_one_delivery(telling: Database, ending: str, count: int) -> None:
    run_id = submit(telling, webhook_url=URL, tenant="acme")
    settle(telling, *(ended(run, ending) for run in claim(telling, start_worker(telling))))  # type: ignore[arg-type]

    assert len(deliveries(telling)) == count
    for row in deliveries(telling):
        assert payloads.decode(row["input"]) == {"run": run_id, "url": URL}
        assert row["tenant"] == "acme"
        assert "run.webhook_queued" in actions_of(telling, run_id)
    verdicts = telling.read_blocking(lambda tx: checks.verdicts(tx, checks.ANY_GRACE_US))
    assert all(verdict.holds for verdict in verdicts)


def test_a_cancelled_and_a_lost_run_are_told_too(telling: Database) -> None:
    idle = submit(telling, webhook_url=URL)
    asyncio.run(cancels.cancel_run(telling, idle, principal="test"))
    assert len(deliveries(telling)) == 1

    submit(telling, webhook_url=URL)
    worker = start_worker(telling)
    claim(telling, worker)
    reap(telling, worker)
    assert len(deliveries(telling)) == 2


def test_runs_without_an_address_queue_nothing(telling: Database) -> None:
    submit(telling)
    settle(telling, *(ended(run) for run in claim(telling, start_worker(telling))))

    assert deliveries(telling) == []


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com", "http://", "http://[", "https://x/" + "y" * 3000])
def test_an_address_that_cannot_be_told_is_refused(telling: Database, url: str) -> None:
    (answer,) = submit_all(telling, request(webhook_url=url))

    assert isinstance(answer, InvalidInput)
    assert answer.fields[0].field == "webhook_url"


def test_without_a_worker_that_delivers_it_is_refused(database: Database) -> None:
    register(database, card("echo"))
    (answer,) = submit_all(database, request(webhook_url=URL))

    assert isinstance(answer, InvalidInput)
    assert "PILOTHOUSE_WEBHOOK_SECRET" in str(answer)
