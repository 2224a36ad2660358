"""A PostgreSQL connection may break at any moment, and each work still takes place exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import pq

from pilothouse.errors import OutcomeUnknown, StoreUnavailable
from pilothouse.store.database import Database, Transaction
from pilothouse.store.postgres_connection import Connection
from tests.postgres_server import PostgresServer
from tests.store.conftest import OpenNotes
from tests.store.cutting_proxy import CuttingProxy, Moment
from tests.store.waiting import wait_until

RUNNER = "pilothouse.store.postgres_runner"
KILL = """SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()"""


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(postgres_url)
    yield proxy
    proxy.close()


@pytest.fixture
def notes(open_notes: OpenNotes, proxy: CuttingProxy) -> Iterator[Database]:
    """Behind the proxy and without prepared statements, so that each COMMIT travels in clear."""
    db = open_notes(f"{proxy.url}?pgbouncer=true")
    yield db
    db.close()


class Work:
    """Counts how often it runs; returns something only this call knows."""

    def __init__(self, write: Callable[[Transaction], None]) -> None:
        self.write, self.calls = write, 0

    def __call__(self, tx: Transaction) -> str:
        self.calls += 1
        self.write(tx)
        return f"call {self.calls}"


def send_only(tx: Transaction) -> None:
    tx.send("insert_note", id="a", text="")


def fetch_last(tx: Transaction) -> None:
    tx.fetch_many("insert_notes", [{"id": "a", "text": ""}])


def send_after_fetch(tx: Transaction) -> None:
    tx.fetch_all("list_notes")
    tx.send("insert_note", id="a", text="")


def ids(db: Database) -> list[str]:
    return [row["id"] for row in db.read_blocking(lambda tx: tx.fetch_all("list_notes"))]


@pytest.mark.parametrize("write", [send_only, fetch_last, send_after_fetch])
@pytest.mark.parametrize(
    ("moment", "answer"),
    [
        ("before_commit_arrives", "call 2"),
        ("while_commit_is_stuck", "call 2"),
        ("after_commit_was_answered", "call 1"),
    ],
)
async def test_a_commit_that_is_cut_takes_place_once(
    notes: Database,
    proxy: CuttingProxy,
    monkeypatch: pytest.MonkeyPatch,
    moment: Moment,
    answer: str,
    write: Callable[[Transaction], None],
) -> None:
    monkeypatch.setattr(f"{RUNNER}.PATIENCE_SECONDS", 0.05)
    work = Work(write)
    proxy.moment = moment

    assert await notes.transaction(work) == answer

    assert proxy.cuts == 1
    assert ids(notes) == ["a"]


async def test_an_outcome_that_cannot_be_found_out_is_said_to_be_unknown(
    notes: Database, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RUNNER}.OUTCOME_SECONDS", 0.2)
    monkeypatch.setattr(f"{RUNNER}.OUTAGE_SECONDS", 0.1)
    work = Work(send_only)
    proxy.moment, proxy.refuses_afterwards = "after_commit_was_answered", True

    with pytest.raises(OutcomeUnknown, match="is unknown; look for its effect"):
        await notes.transaction(work)

    assert work.calls == 1


async def test_a_patient_call_waits_until_the_outcome_can_be_found_out(
    notes: Database, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RUNNER}.OUTCOME_SECONDS", 0.2)
    monkeypatch.setattr(f"{RUNNER}.OUTAGE_SECONDS", 0.1)
    work = Work(send_only)
    proxy.moment, proxy.refuses_afterwards = "after_commit_was_answered", True
    waiting = asyncio.ensure_future(notes.transaction(work, is_patient=True))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 1.0)
    proxy.refuses_afterwards = False

    assert await waiting == "call 1"


@pytest.mark.slow
async def test_a_server_that_was_started_anew_is_not_believed_that_a_number_was_committed(
    private_postgres: PostgresServer, open_notes: OpenNotes
) -> None:
    """After a crash the server gives the numbers of transactions that it has forgotten to new ones."""
    proxy = CuttingProxy(private_postgres.url())
    notes = open_notes(f"{proxy.url}?pgbouncer=true")
    work = Work(send_only)
    proxy.moment, proxy.refuses_afterwards = "after_commit_was_answered", True
    waiting = asyncio.ensure_future(notes.transaction(work, is_patient=True))
    await asyncio.to_thread(wait_until, lambda: proxy.cuts == 1)

    private_postgres.stop("immediate")
    private_postgres.start()
    proxy.refuses_afterwards = False

    with pytest.raises(OutcomeUnknown):
        await waiting
    assert work.calls == 1
    proxy.close()


async def test_a_commit_of_nothing_needs_no_answer(notes: Database, proxy: CuttingProxy) -> None:
    proxy.moment = "before_commit_arrives"

    assert await notes.transaction(lambda tx: tx.fetch_all("list_notes")) == []

    assert proxy.cuts == 1


async def test_a_work_whose_connection_is_ended_half_way_runs_again(open_notes: OpenNotes, postgres_url: str) -> None:
    notes = open_notes(postgres_url)

    def kill_once(tx: Transaction) -> None:
        tx.fetch_many("insert_notes", [{"id": "a", "text": ""}])
        if work.calls == 1:
            kill_connections(postgres_url)
        tx.send("insert_note", id="b", text="")

    work = Work(kill_once)

    assert await notes.transaction(work) == "call 2"
    assert ids(notes) == ["a", "b"]


async def test_connections_that_died_while_idle_are_replaced(open_notes: OpenNotes, postgres_url: str) -> None:
    notes = open_notes(postgres_url)
    kill_connections(postgres_url)

    await notes.transaction(send_only)
    kill_connections(postgres_url)

    assert ids(notes) == ["a"]


async def test_a_server_that_always_hangs_up_is_unavailable(open_notes: OpenNotes, postgres_url: str) -> None:
    notes = open_notes(postgres_url)

    def die(tx: Transaction) -> None:
        tx.fetch_all("list_notes")
        kill_connections(postgres_url)
        tx.fetch_all("list_notes")

    work = Work(die)

    with pytest.raises(StoreUnavailable, match=r"connection to PostgreSQL at 127\.0\.0\.1:\d+/test_\w+ broke"):
        await notes.transaction(work)
    assert work.calls == 5


@pytest.mark.slow
async def test_a_server_that_is_away_is_unavailable_until_it_is_back(
    private_postgres: PostgresServer, open_notes: OpenNotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RUNNER}.OUTAGE_SECONDS", 0.1)
    monkeypatch.setattr(f"{RUNNER}.RECENT_SECONDS", 0.0)
    heard: list[str] = []
    notes = open_notes(private_postgres.url())
    notes.listen(heard.append)
    private_postgres.stop("immediate")

    with pytest.raises(StoreUnavailable, match=r"cannot reach PostgreSQL at 127\.0\.0\.1:\d+/postgres"):
        await notes.transaction(send_only)
    with pytest.raises(StoreUnavailable):
        notes.check()
    notes.notify("runs")
    heard.clear()
    private_postgres.start()

    await notes.transaction(send_only)
    assert ids(notes) == ["a"]
    await asyncio.to_thread(wait_until, lambda: "*" in heard)


def kill_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(KILL)


class Refusing:
    """libpq on a connection that breaks just before one of its functions is called."""

    def __init__(self, real: pq.abc.PGconn, function: str) -> None:
        self._real, self._function = real, function

    def __getattr__(self, name: str) -> object:
        return self._refuse if name == self._function else getattr(self._real, name)

    def _refuse(self, *arguments: object) -> None:
        raise psycopg.OperationalError(f"{self._function} failed: server closed the connection unexpectedly")


@pytest.mark.parametrize(
    "function",
    ["send_prepare", "send_query_prepared", "send_flush_request", "pipeline_sync", "flush", "consume_input"],
)
async def test_whatever_libpq_refuses_the_work_runs_again(
    open_notes: OpenNotes, postgres_url: str, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """As when the server goes between two calls: each of them may be the one that learns of it."""
    connections: list[Connection] = []

    class Breaking(Connection):
        def __init__(self, parameters: Mapping[str, Any], location: str, *, prepares: bool) -> None:
            super().__init__(parameters, location, prepares=prepares)
            connections.append(self)

    monkeypatch.setattr(f"{RUNNER}.Connection", Breaking)
    notes = open_notes(postgres_url)

    def break_once(tx: Transaction) -> None:
        if work.calls == 1:
            for connection in connections:
                monkeypatch.setattr(connection, "_pg", Refusing(connection._pg, function))
        tx.fetch_many("insert_notes", [{"id": "a", "text": ""}])

    work = Work(break_once)

    assert await notes.transaction(work) == "call 2"
    assert ids(notes) == ["a"]
