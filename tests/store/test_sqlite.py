"""What only SQLite has: a file that may be missing, foreign, full, read-only, replaced or shared between processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pilothouse.errors import ConfigError, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.sqlite_file import require_version
from tests.store.conftest import NOTES, OpenNotes

PROCESSES, INCREMENTS = 3, 150


def add(id: str, text: str = "") -> Callable[[Transaction], None]:
    return lambda tx: tx.send("insert_note", id=id, text=text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def notes(open_notes: OpenNotes, path: Path) -> Database:
    return open_notes(f"sqlite:///{path}")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"absent of the database does not exist; create it"):
        open_database(f"sqlite:///{tmp_path}/absent/store.db").start()


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(StoreError, match=r"store\.db is not a SQLite database"):
        open_database(f"sqlite:///{path}").start()


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_database(f"sqlite:///{tmp_path}").start()


def test_a_relative_path_and_special_characters_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with closing(open_database("sqlite:///./my%20store.db?synchronous=normal")) as db:
        db.start()

    assert (tmp_path / "my store.db").exists()


def test_an_old_sqlite_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SQLite 3\.39\.0 or later is needed, this Python brings 3\.37\.2"):
        require_version((3, 37, 2))


async def test_only_the_work_that_fills_the_disk_fails(notes: Database) -> None:
    notes.administer(lambda tx: tx.fetch_all("PRAGMA max_page_count = 20"))

    works = [add(str(number), text="x" * 1_000_000 if number == 5 else "") for number in range(10)]

    results = await asyncio.gather(*map(notes.transaction, works), return_exceptions=True)

    assert [index for index, result in enumerate(results) if isinstance(result, StoreFull)] == [5]
    assert len(notes.read_blocking(lambda tx: tx.fetch_all("list_notes"))) == 9


def test_a_read_only_file_is_named(notes: Database) -> None:
    notes.administer(lambda tx: tx.fetch_all("PRAGMA query_only = ON"))

    with pytest.raises(StoreReadOnly, match=r"store\.db is read-only"):
        notes.transaction_blocking(add("a"))


def test_another_process_that_keeps_the_lock_is_reported(
    notes: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse.store.sqlite_writer.BUSY_SECONDS", 0.02)

    with write_lock(path), pytest.raises(StoreUnavailable, match=r"held the write lock of .*store\.db"):
        notes.transaction_blocking(add("a"))

    notes.transaction_blocking(add("a"))


async def test_a_commit_waits_for_the_lock_of_another_process(notes: Database, path: Path) -> None:
    with write_lock(path):
        waiting = asyncio.ensure_future(notes.transaction(add("a")))
        assert await notes.read(lambda tx: tx.fetch_all("list_notes")) == []
        assert not waiting.done()

    await waiting


def test_check_notices_a_replaced_file(notes: Database, path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(StoreUnavailable, match="cannot be found"):
        notes.check()

    path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="was replaced"):
        notes.check()


def test_a_transaction_inside_a_work_is_refused(notes: Database) -> None:
    with pytest.raises(StoreError, match="cannot wait for another transaction"):
        notes.transaction_blocking(lambda tx: notes.transaction_blocking(add("a")))


def test_close_leaves_one_file(notes: Database, path: Path) -> None:
    notes.transaction_blocking(add("a"))

    notes.close()

    assert [each.name for each in path.parent.iterdir()] == ["store.db"]


def test_its_own_commits_are_no_hints(notes: Database) -> None:
    heard: list[str] = []
    notes.listen(heard.append)

    for number in range(20):
        notes.transaction_blocking(add(str(number)))

    assert heard == []


def test_processes_that_write_at_once_lose_nothing(notes: Database, path: Path) -> None:
    notes.transaction_blocking(lambda tx: tx.send("insert_note", id="counter", text="0"))

    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(str(path),)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    row = notes.read_blocking(lambda tx: tx.fetch_one("note_by_id", id="counter"))
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert row is not None
    assert row["text"] == str(PROCESSES * INCREMENTS)


def count_up(path: str) -> None:
    db = open_database(f"sqlite:///{path}", statements=NOTES)
    db.start()
    with closing(db):
        asyncio.run(_count_up(db))


async def _count_up(db: Database) -> None:
    await asyncio.gather(*(db.transaction(_increment) for _ in range(INCREMENTS)))


def _increment(tx: Transaction) -> None:
    row = tx.fetch_one("note_by_id", id="counter")
    assert row is not None
    tx.send("rename_note", id="counter", text=str(int(row["text"]) + 1))


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
