"""Migrations are applied once, in order, in whole and by one process at a time, never to a schema they do not know."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilothouse.errors import SchemaError, StoreError
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import ensure_current, is_empty, load_migrations, migrate, status
from pilothouse.store.schema import describe_schema

FIRST = """-- Things.; with a ' in the comment
CREATE TABLE things (id {id} PRIMARY KEY, at {bigint} NOT NULL DEFAULT 0, note TEXT CHECK (note <> ';'));
CREATE TABLE pairs (a {id} NOT NULL, b {id} NOT NULL, PRIMARY KEY (a, b)) {without_rowid};
CREATE TABLE log (seq {bigserial}, text TEXT);
CREATE INDEX things_at ON things (at) WHERE note IS NOT NULL;
-- only: sqlite
CREATE TRIGGER things_log AFTER INSERT ON things BEGIN
    INSERT INTO log (text) VALUES ('one; two');
    UPDATE things SET note = CASE WHEN note IS NULL THEN 'none' ELSE note END WHERE id = NEW.id;
END;
-- end
-- only: postgres
CREATE FUNCTION log_thing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (text) VALUES ('one; two');

    RETURN NEW;
END
$$;
CREATE TRIGGER things_log BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION log_thing();
-- end
"""
SECOND = "ALTER TABLE things ADD COLUMN size BIGINT;"
THIRD = "DROP TABLE pairs;"


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = open_database(database_url)
    db.start()
    yield db
    db.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_pre_things.sql").write_text(FIRST)
    (folder / "0002_pre_size.sql").write_text(SECOND)
    (folder / "0003_post_pairs.sql").write_text(THIRD)
    return folder


def versions(db: Database, folder: Path) -> list[int]:
    return [each.version for each in status(db, folder=folder) if each.applied_at]


def test_what_waits_is_applied_once_and_in_order(db: Database, folder: Path) -> None:
    assert is_empty(db)

    applied = migrate(db, folder=folder)

    assert [(each.version, each.name, each.phase) for each in applied] == [
        (1, "things", "pre"),
        (2, "size", "pre"),
        (3, "pairs", "post"),
    ]
    assert all(each.applied_at for each in applied)
    assert status(db, folder=folder) == applied
    assert migrate(db, folder=folder) == []
    assert not is_empty(db)
    ensure_current(db, folder=folder)


def test_triggers_and_their_bodies_arrive_whole(db: Database, folder: Path) -> None:
    migrate(db, folder=folder)

    db.administer(lambda tx: tx.execute("INSERT INTO things (id) VALUES ('a')"))

    assert db.administer(lambda tx: tx.fetch_all("SELECT text FROM log")) == [{"text": "one; two"}]


def test_one_phase_is_applied_alone(db: Database, folder: Path) -> None:
    assert [each.version for each in migrate(db, "pre", folder=folder)] == [1, 2]
    ensure_current(db, folder=folder)
    assert [each.version for each in migrate(db, "post", folder=folder)] == [3]


def test_a_migration_that_fails_leaves_nothing_of_itself(db: Database, folder: Path) -> None:
    (folder / "0002_pre_size.sql").write_text("CREATE TABLE half (id TEXT); INSERT INTO absent VALUES (1);")

    with pytest.raises(StoreError, match="INSERT INTO absent"):
        migrate(db, folder=folder)

    assert versions(db, folder) == [1]
    assert "half" not in describe_schema(db)["tables"]


def test_processes_that_migrate_at_once_apply_each_migration_once(database_url: str, folder: Path) -> None:
    databases = [open_database(database_url) for _ in range(4)]
    for each in databases:
        each.start()

    with ThreadPoolExecutor(4) as pool:
        applied = [done.version for part in pool.map(lambda db: migrate(db, folder=folder), databases) for done in part]

    for each in databases:
        each.close()
    assert sorted(applied) == [1, 2, 3]


def test_an_older_schema_is_refused_with_the_command(db: Database, folder: Path) -> None:
    with pytest.raises(SchemaError, match=r"2 migrations wait, the first is 0001_things; run `pilothouse db migrate`"):
        ensure_current(db, folder=folder)


def test_a_newer_schema_is_refused_once_it_has_taken_something_away(db: Database, folder: Path) -> None:
    migrate(db, folder=folder)
    (folder / "0003_post_pairs.sql").unlink()

    with pytest.raises(SchemaError, match="schema 3, this one knows 2; upgrade"):
        ensure_current(db, folder=folder)
    with pytest.raises(SchemaError, match="newer Pilothouse"):
        migrate(db, folder=folder)


def test_a_newer_schema_that_only_adds_still_serves_the_release_before(db: Database, folder: Path) -> None:
    migrate(db, "pre", folder=folder)
    (folder / "0002_pre_size.sql").unlink()

    ensure_current(db, folder=folder)

    assert versions(db, folder) == [1, 2]


def test_an_edited_migration_is_refused(db: Database, folder: Path) -> None:
    migrate(db, folder=folder)
    (folder / "0002_pre_size.sql").write_text(SECOND + " ")

    with pytest.raises(SchemaError, match="0002_size differs from the one that this database has"):
        ensure_current(db, folder=folder)


def test_a_described_schema_shows_every_difference(db: Database, folder: Path) -> None:
    migrate(db, folder=folder)
    schema = describe_schema(db)

    columns = schema["tables"]["things"]["columns"]
    assert set(columns) == {"id", "at", "note", "size"}
    assert "pairs" not in schema["tables"]
    assert "note IS NOT NULL" in schema["indexes"]["things_at"]
    assert any("CHECK" in each for each in schema["tables"]["things"]["constraints"])
    assert set(schema["triggers"]) == {"things_log"}

    db.administer(lambda tx: tx.execute("DROP INDEX things_at"))
    db.administer(lambda tx: tx.execute("CREATE INDEX things_at ON things (at) WHERE note IS NULL"))
    assert describe_schema(db) != schema


@pytest.mark.parametrize("name", ["1_pre_a.sql", "0001_a.sql", "0001_during_a.sql", "0001_pre_a.mysql.sql"])
def test_a_wrong_file_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(SchemaError, match="must be named"):
        load_migrations("sqlite", tmp_path)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    for name in ("0001_pre_a.sql", "0001_post_b.sqlite.sql"):
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(SchemaError, match="two migrations have the number 0001 for sqlite"):
        load_migrations("sqlite", tmp_path)
    assert [each.name for each in load_migrations("postgres", tmp_path)] == ["a"]


def test_an_unknown_placeholder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_pre_a.sql").write_text("CREATE TABLE a (id {uuid})")

    with pytest.raises(SchemaError, match=r"0001_pre_a\.sql uses the unknown placeholder {uuid}"):
        load_migrations("sqlite", tmp_path)


def test_the_shipped_migrations_bring_the_database_up_to_date(db: Database) -> None:
    migrate(db)

    ensure_current(db)
    assert "runs" in describe_schema(db)["tables"]
