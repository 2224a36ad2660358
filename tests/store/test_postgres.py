"""What only PostgreSQL has: collisions, poolers, old or read-only servers, passwords in URLs, windows for hints."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from pilothouse.errors import ConfigError, SchemaError, StoreError, StoreReadOnly, StoreUnavailable
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.postgres_connection import require_version
from pilothouse.store.postgres_hints import CHANNEL, WINDOW_SECONDS
from tests.patience import WAIT_SECONDS
from tests.store.conftest import OpenNotes
from tests.store.waiting import wait_until


def add(id: str) -> Callable[[Transaction], None]:
    return lambda tx: tx.send("insert_note", id=id, text="")


@pytest.fixture
def notes(open_notes: OpenNotes, postgres_url: str) -> Database:
    return open_notes(postgres_url)


async def test_the_victim_of_a_deadlock_runs_again(notes: Database, postgres_url: str) -> None:
    await notes.transaction(lambda tx: tx.send_many("insert_notes", [{"id": id, "text": "0"} for id in "ab"]))
    both_hold_one = threading.Barrier(2)

    def rename(first: str, second: str) -> None:
        met: list[bool] = []

        def work(tx: Transaction) -> None:
            tx.execute("rename_note", id=first, text=first)
            if not met:
                met.append(True)
                both_hold_one.wait(WAIT_SECONDS)
            tx.execute("rename_note", id=second, text=first)

        notes.transaction_blocking(work)

    await asyncio.gather(asyncio.to_thread(rename, "a", "b"), asyncio.to_thread(rename, "b", "a"))

    rows = await notes.read(lambda tx: tx.fetch_all("list_notes"))
    assert len({row["text"] for row in rows}) == 1


@pytest.mark.parametrize(("options", "prepared"), [("", True), ("?pgbouncer=true", False)])
async def test_statements_are_prepared_unless_a_pooler_is_between(
    open_notes: OpenNotes, postgres_url: str, options: str, prepared: bool
) -> None:
    notes = open_notes(postgres_url + options)

    row = await notes.read(lambda tx: tx.fetch_one("prepared"))

    assert row is not None
    assert (row["count"] > 0) == prepared


async def test_a_table_that_a_migration_changes_does_not_break_prepared_statements(notes: Database) -> None:
    await notes.transaction(add("a"))
    await notes.read(lambda tx: tx.fetch_one("note_by_id", id="a"))

    notes.administer(lambda tx: tx.execute("ALTER TABLE notes ADD COLUMN extra TEXT DEFAULT 'new'"))

    row = await notes.read(lambda tx: tx.fetch_one("note_by_id", id="a"))
    assert row is not None
    assert row["extra"] == "new"


async def test_a_read_only_server_is_named(notes: Database) -> None:
    def make_read_only(tx: Transaction) -> None:
        name = tx.fetch_all("SELECT current_database() AS name")[0]["name"]
        tx.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    notes.administer(make_read_only)
    notes.close()
    notes.start()

    with pytest.raises(StoreReadOnly, match="is read-only here"):
        await notes.transaction(add("a"))


def test_text_with_a_nul_is_refused(notes: Database) -> None:
    with pytest.raises(ValueError, match="NUL"):
        notes.transaction_blocking(lambda tx: tx.send("insert_note", id="a\0b", text=""))
    with pytest.raises(ValueError, match="NUL"):
        notes.transaction_blocking(lambda tx: tx.send_many("insert_notes", [{"id": "a\0b", "text": ""}]))


def test_a_type_that_no_statement_takes_is_refused(notes: Database) -> None:
    with pytest.raises(TypeError, match="cannot take a object"):
        notes.transaction_blocking(lambda tx: tx.send("insert_note", id=object(), text=""))
    with pytest.raises(TypeError, match="cannot take a object"):
        notes.transaction_blocking(lambda tx: tx.send_many("insert_notes", [{"id": object(), "text": ""}]))


async def test_more_data_than_the_network_buffers_goes_both_ways(notes: Database) -> None:
    text = "x" * 1_000_000

    def work(tx: Transaction) -> int:
        for number in range(20):
            tx.send("echo", text=text, number=number, amount=None)
        tx.send_many("insert_notes", [{"id": str(number), "text": text} for number in range(20)])
        return sum(len(row["text"]) for row in tx.fetch_all("list_notes"))

    assert await notes.transaction(work) == 20_000_000


async def test_more_works_than_connections_share_them(notes: Database, postgres_url: str) -> None:
    works = [notes.transaction(add(str(n))) for n in range(100)]

    await asyncio.gather(*works)

    rows = await notes.read(lambda tx: tx.fetch_all("list_notes"))
    assert len(rows) == 100


def test_a_burst_of_hints_is_few_notifications(notes: Database, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        start = time.monotonic()
        for _ in range(2000):
            notes.notify("runs")
        notes.notify("last")
        most = (time.monotonic() - start) / WINDOW_SECONDS + 2

        topics: list[str] = []
        for notification in listener.notifies(timeout=WAIT_SECONDS):
            topics.append(notification.payload)
            if "last" in topics and topics.count("runs") >= 1:
                break

    assert 1 <= topics.count("runs") <= most


def test_hints_that_are_due_are_sent_before_the_end(notes: Database, postgres_url: str) -> None:
    sent = {str(number) for number in range(500)}
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        for topic in sent:
            notes.notify(topic)

        notes.close()

        heard: set[str] = set()
        for notification in listener.notifies(timeout=WAIT_SECONDS):
            heard.add(notification.payload)
            if heard >= sent:
                break
    assert heard == sent


def test_too_many_topics_at_once_become_one_hint(notes: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.store.postgres_hints.MAX_TOPICS", 0)
    heard: list[str] = []
    notes.listen(heard.append)
    wait_until(lambda: "*" in heard)  # it listens from now on
    heard.clear()

    notes.notify("runs")

    wait_until(lambda: "*" in heard)


def test_an_old_server_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"PostgreSQL 15 or later is needed; this is 13\.9 at db:5432/x"):
        require_version(130_009, "db:5432/x")


def test_an_unreachable_server_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.store.postgres_runner.OUTAGE_SECONDS", 0.0)

    with pytest.raises(StoreUnavailable, match=r"PostgreSQL at 127\.0\.0\.1:1/runs") as refused:
        open_database("postgresql://user:hunter2@127.0.0.1:1/runs").start()

    assert "hunter2" not in f"{refused.value!r} {refused.value.__cause__!r}"


@pytest.mark.parametrize(
    "authority",
    ["user:hun@ter2@host", "user:hun/ter2@host", "user:hun#ter2@host", "user:hun?ter2@host", "user:ter2@[x"],
)
def test_a_url_that_cannot_be_read_is_refused_without_the_password(authority: str) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as refused:
        open_database(f"postgresql://{authority}/db")

    assert "ter2" not in str(refused.value)


def test_a_missing_database_is_named(postgres_server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.store.postgres_runner.OUTAGE_SECONDS", 0.0)

    with pytest.raises(StoreError, match="absent"):
        open_database(postgres_server_url.rpartition("/")[0] + "/absent").start()


def test_a_connection_that_is_in_use_while_the_database_is_closed_is_closed_after_it(
    notes: Database, postgres_url: str
) -> None:
    is_working, may_end = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        tx.fetch_all("list_notes")
        is_working.set()
        assert may_end.wait(20)

    working = threading.Thread(target=notes.transaction_blocking, args=(work,))
    working.start()
    assert is_working.wait(20)

    notes.close()
    may_end.set()
    working.join(20)

    with psycopg.connect(postgres_url, autocommit=True) as admin:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        wait_until(lambda: admin.execute(others).fetchone() == (0,))
