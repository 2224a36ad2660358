"""What cannot work is told at the start: one clear line, exit code 1, no traceback, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from pilothouse.payloads import decode
from tests.crash.processes import Fleet, eventually

ROLES = [("worker",), ("api", "--port", "0"), ("scheduler",), ("up", "--port", "0")]
LATER = "INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 'post', 0)"


def refusals(fleet: Fleet, *commands: tuple[str, ...], **environment: str) -> list[str]:
    """The one line in which each command says why it ends."""
    names = ["-".join(command) for command in commands]
    for name, command in zip(names, commands, strict=True):
        fleet.start(name, *command, **{"LOG_LEVEL": "warning", **environment})
    return [_refusal(fleet, name) for name in names]


def _refusal(fleet: Fleet, name: str) -> str:
    code, said = fleet.wait(name), fleet.log_of(name).splitlines()
    assert code == 1, said
    assert [line.startswith("error: ") for line in said] == [True], said
    return said[0]


def test_a_database_of_a_newer_schema_is_left_alone(fleet: Fleet) -> None:
    (run_id,) = fleet.submit("worker_bee")
    fleet.db.administer(lambda tx: tx.execute(LATER))

    for told in refusals(fleet, *ROLES):
        assert "was written by a newer Pilothouse: schema 9999" in told

    assert fleet.run(run_id)["state"] == "queued"
    assert fleet.workers() == []


def test_an_unreachable_postgresql_is_named_without_its_password(sqlite_fleet: Fleet) -> None:
    for told in refusals(sqlite_fleet, *ROLES, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/db"):
        assert "cannot reach PostgreSQL at 127.0.0.1:1/db" in told
        assert "secret" not in told


@pytest.mark.parametrize("has_schema", [False])
def test_a_postgresql_role_that_may_create_nothing_is_told(sqlite_fleet: Fleet, postgres_url: str) -> None:
    role = f"limited_{urlsplit(postgres_url).path.strip('/')}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE ROLE "{role}" LOGIN')
    url = urlsplit(postgres_url)
    limited = url._replace(netloc=f"{role}@{url.hostname}:{url.port}").geturl()

    (told,) = refusals(sqlite_fleet, ("worker",), DATABASE_URL=limited)

    assert "permission denied for schema public" in told
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP ROLE "{role}"')


def test_a_folder_that_cannot_be_written_is_named(sqlite_fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)

    for told in refusals(sqlite_fleet, *ROLES, DATABASE_URL=f"sqlite:///{folder / 'store.db'}"):
        assert str(folder) in told
        assert "write to" in told
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_and_left_alone(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    (run_id,) = fleet.submit("worker_bee")
    file = fleet.folder / "store.db"
    file.chmod(0o444)

    for told in refusals(fleet, *ROLES):
        assert str(file) in told

    file.chmod(0o644)
    assert fleet.run(run_id)["state"] == "queued"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise SystemExit(3)\n", "SystemExit: 3 at"),
        ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
        ("app.agent(3)\n", "its handler is 3, which cannot be called"),
        ("@app.agent\ndef a(): ...\n@app.agent(name='a')\ndef b(): ...\n", "has two agents named 'a'"),
    ],
)
def test_an_app_that_cannot_be_used_costs_no_run(sqlite_fleet: Fleet, source: str, told: str) -> None:
    fleet = sqlite_fleet
    (run_id,) = fleet.submit("worker_bee")
    (fleet.folder / "broken.py").write_text(f"from pilothouse import App\napp = App('t')\n{source}")

    commands = [("worker", "broken:app"), ("worker", "broken:app", "--processes", "2"), ("up", "broken:app")]
    for line in refusals(fleet, *commands):
        assert told in line

    assert fleet.states([run_id]) == {"queued": 1}
    assert fleet.workers() == []


def test_a_setting_that_does_not_exist_is_named(sqlite_fleet: Fleet) -> None:
    (sqlite_fleet.folder / "pilothouse.toml").write_text("lease_second = 3\n")

    for told in refusals(sqlite_fleet, *ROLES):
        assert "there is no setting 'lease_second'; did you mean 'lease_seconds'?" in told


def test_a_log_file_that_cannot_be_opened_is_named(sqlite_fleet: Fleet) -> None:
    for told in refusals(sqlite_fleet, *ROLES, LOG_DESTINATION="file:/nowhere/there.log"):
        assert "/nowhere/there.log cannot be opened" in told


def test_a_result_that_cannot_be_stored_fails_its_run_and_nothing_else(fleet: Fleet) -> None:
    fleet.start_worker("worker")

    bad, good = fleet.submit("unstorable"), fleet.submit("worker_bee", 3)

    assert fleet.until_ended(bad) == {"failed": 1}
    assert fleet.until_ended(good) == {"succeeded": 3}
    error = decode(fleet.run(bad[0])["error"])
    assert error["type"] == "ResultError"
    assert "returned a object that cannot be stored" in error["message"]
    assert [step for step, _ in fleet.steps_executed(bad[0])] == ["before"]
    eventually(lambda: '"ResultError"' in fleet.log_of("worker"), "the log to say so")
    assert "Traceback" not in fleet.log_of("worker")
