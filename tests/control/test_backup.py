"""Backups of both stores, taken under load, restored into either, and refused when they are not whole."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilothouse.control import backup, checks
from pilothouse.errors import ConfigError, Conflict
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    card,
    checkpoint,
    claim,
    demand,
    ended,
    register,
    request,
    settle,
    start_worker,
    state_of,
    submit,
    submit_all,
    write,
)
from tests.postgres_admin import PostgresAdmin

NewDatabase = Callable[[str], Database]


@pytest.fixture
def empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NewDatabase]:
    """Opens a new, empty database of a dialect."""
    with ExitStack() as stack:

        def url_of(dialect: str) -> str:
            if dialect == "sqlite":
                return f"sqlite:///{tmp_path / 'other.db'}"
            admin: PostgresAdmin = request.getfixturevalue("postgres_admin")
            return stack.enter_context(admin.database())

        def open_one(dialect: str) -> Database:
            db = open_database(url_of(dialect))
            db.start()
            stack.callback(db.close)
            return db

        yield open_one


def live(db: Database) -> str:
    """Some runs in several states, among them text that is hard on files; the id of the one that is running."""
    register(db, card("echo"))
    submit_all(db, *(request(input={"text": 'ü "quoted"\n\t\u2028 😀'}) for _ in range(5)))
    first, second, third = claim(db, start_worker(db, lease_us=10**12), wanted=demand(normal=3))
    write(db, checkpoint(first, "s"), checkpoint(second, "s"))
    settle(db, ended(first), ended(second, "fatal"))
    return third.run_id


def broken(db: Database) -> list[str]:
    verdicts = db.read_blocking(lambda tx: checks.verdicts(tx, checks.ANY_GRACE_US))
    return [verdict.name for verdict in verdicts if not verdict.holds]


@pytest.mark.parametrize("dialect", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_a_backup_is_restored_into_either_store(
    database: Database, empty: NewDatabase, tmp_path: Path, dialect: str
) -> None:
    running = live(database)
    made = backup.backup(database, tmp_path / "b.gz")

    target = empty(dialect)
    restored = backup.restore(tmp_path / "b.gz", target)

    assert restored.rows == made.rows
    assert made.rows["runs"] == 5
    assert broken(target) == []
    assert state_of(target, running) == "running"
    (again,) = [row for row in rows(target) if row["id"] == running]
    (before,) = [row for row in rows(database) if row["id"] == running]
    assert again == before
    assert submit(target), "numbered rows go on after the last"
    assert broken(target) == []


def rows(db: Database) -> list[dict[str, object]]:
    return db.administer(lambda tx: tx.fetch_all("SELECT * FROM runs ORDER BY id"))


def test_a_backup_under_load_is_of_one_moment(database: Database, empty: NewDatabase, tmp_path: Path) -> None:
    register(database, card("echo"))
    submit_all(database, *(request() for _ in range(20)))
    worker, done = start_worker(database, lease_us=10**12), threading.Event()

    def work() -> None:
        while not done.is_set():
            submit_all(database, *(request() for _ in range(20)))
            runs = claim(database, worker, wanted=demand(normal=15))
            settle(database, *(ended(run) for run in runs[:10]))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(3):
            made = backup.backup(database, tmp_path / f"{number}.gz")
    finally:
        done.set()
        thread.join()

    target = empty("sqlite")
    backup.restore(tmp_path / "2.gz", target)
    assert made.rows["runs"] > 0
    assert broken(target) == []


def test_a_file_that_is_not_whole_is_refused_and_nothing_is_written(
    database: Database, empty: NewDatabase, tmp_path: Path
) -> None:
    live(database)
    good = tmp_path / "b.gz"
    backup.backup(database, good)
    data, text = good.read_bytes(), gzip.decompress(good.read_bytes())
    wrong = {
        "cut": data[: len(data) // 2],
        "changed": gzip.compress(text.replace(b'"succeeded"', b'"cancelled"', 1)),
        "short": gzip.compress(b"\n".join(text.splitlines()[:-3]) + b"\n"),
        "other": gzip.compress(b'{"something": "else"}\n'),
        "empty": b"",
        "plain": b"nothing of ours",
    }
    target = empty("sqlite")

    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            backup.restore(tmp_path / name, target)
    with pytest.raises(ConfigError, match="there is no file"):
        backup.restore(tmp_path / "missing", target)
    assert target.administer(lambda tx: tx.fetch_all("SELECT name FROM sqlite_master")) == []


def test_a_database_that_is_not_empty_is_left_alone(database: Database, empty: NewDatabase, tmp_path: Path) -> None:
    live(database)
    backup.backup(database, tmp_path / "b.gz")
    target = empty("sqlite")
    migrate(target)

    with pytest.raises(Conflict, match="is not empty"):
        backup.restore(tmp_path / "b.gz", target)
    assert rows(target) == []


def test_a_path_that_cannot_be_written_leaves_nothing(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        backup.backup(database, tmp_path / "missing" / "b.gz")
    (tmp_path / "folder.gz").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        backup.backup(database, tmp_path / "folder.gz")
    assert not list(tmp_path.glob("*.part"))
