"""Starting up on wrong settings, wrong Apps and wrong databases: one clear line, exit 1, nothing lost."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from pilothouse import Client
from pilothouse.errors import NotFound, StoreError
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate
from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS

APP = 'from pilothouse import App\napp = App("t")\n'
NOBODY = 65534
AGENT = "@app.agent\nasync def hello(ctx, name: str) -> str:\n    return name\n"


def project(shell: Shell, source: str = APP + AGENT, toml: str = 'app = "agents:app"\n') -> None:
    shell.write("agents.py", source)
    shell.write("pilothouse.toml", toml)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nothing_like_it\n", "ModuleNotFoundError: No module named 'nothing_like_it' at"),
        ("def broken(:\n", "agents.py, line 1: invalid syntax"),
        ("from agents import Agent\n", "agents.py hides a package that it imports: rename the file"),
        ("1 / 0\n", "ZeroDivisionError: division by zero at"),
        ("x = 1\n", "'agents:app' is missing in"),
        ("app = 3\n", "'agents:app' is a int in"),
        (APP, "has no agents"),
        (APP + AGENT + AGENT, "has two agents named 'hello'"),
        (APP + "app.agent(3)\n", "its handler is 3, which cannot be called"),
        (APP + "@app.agent\nasync def a(ctx, x: object()): ...\n", "its types cannot be read from JSON"),
        (APP + "@app.agent(lane='fast')\nasync def a(ctx): ...\n", "lane 'fast' does not exist"),
        (APP + "@app.agent(max_attempts=0)\nasync def a(ctx): ...\n", "max_attempts is 0; it must be at least 1"),
        (APP + "@app.agent(speed=1)\nasync def a(ctx): ...\n", "speed"),
    ],
)
def test_an_app_that_cannot_be_used_is_told_with_its_place(shell: Shell, source: str, told: str) -> None:
    project(shell, source)

    said = shell("up", "--port", "0")

    assert (said.code, told in said.err) == (1, True), said.err


@pytest.mark.parametrize(
    ("toml", "environment", "told"),
    [
        ('ap = "agents:app"\n', {}, "there is no setting 'ap'; did you mean 'app'?"),
        ('app = "agents:app"\npool_size = "many"\n', {}, "setting pool_size = 'many' (pilothouse.toml)"),
        ('app = "agents:app"\n', {"LOG_LEVEL": "loud"}, "setting log_level = 'loud' (LOG_LEVEL)"),
        ('app = "agents:app"\n', {"AGENT_HEARTBEAT_INTERVAL": "9", "PILOTHOUSE_LEASE_SECONDS": "10"}, "lease_seconds"),
        ('app = "agents:app"\n', {"AGENT_MAX_CONCURRENT_TASKS": "3"}, "max_concurrent_runs is 3"),
        ('app = "agents:app"\n', {"PILOTHOUSE_LANES": "fast=1"}, "'fast=1' is not LANE=SLOTS"),
        ("app = [\n", {}, "pilothouse.toml cannot be read"),
        ('app = "agents:app"\n', {"DATABASE_URL": "mysql://x"}, "the database URL starts with 'mysql'"),
        ("", {}, "no App is named"),
    ],
)
def test_a_wrong_setting_is_told_with_where_it_was_set(
    shell: Shell, toml: str, environment: dict[str, str], told: str
) -> None:
    project(shell, toml=toml)

    said = shell("up", "--port", "0", **environment)

    assert (said.code, told in said.err) == (1, True), said.err


def test_the_environment_beats_the_file_and_passwords_are_masked(shell: Shell) -> None:
    project(shell, toml='app = "agents:app"\nport = 1234\n')

    rows = shell("config", "show", "--json", DATABASE_URL="postgresql://me:secret@host/db").json

    shown = {row["name"]: (row["value"], row["source"]) for row in rows}
    assert shown["database_url"] == ("postgresql://me:***@host/db", "DATABASE_URL")
    assert shown["port"] == ("1234", "pilothouse.toml")
    assert shown["host"] == ("127.0.0.1", "default")


def test_a_missing_database_is_not_made_by_accident(shell: Shell) -> None:
    said = shell("runs", "list")

    assert (said.code, "start one with `pilothouse up`" in said.err) == (1, True)
    assert list(shell.folder.iterdir()) == []


def test_a_port_in_use_and_a_host_that_is_seen_from_outside_are_refused(shell: Shell) -> None:
    project(shell)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        in_use = shell("up", "--port", str(port))

    outside = shell("up", "--host", "0.0.0.0", "--port", "0")
    assert (in_use.code, f"port {port} on 127.0.0.1 cannot be used" in in_use.err) == (1, True)
    assert (outside.code, "there is no API key" in outside.err) == (1, True)


def test_a_database_of_a_newer_schema_is_left_alone(shell: Shell) -> None:
    project(shell)
    path = database(shell)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 'post', 0)")

    for arguments in (("runs", "list"), ("up", "--port", "0"), ("scheduler",)):
        said = shell(*arguments)
        assert (said.code, "newer Pilothouse" in said.err) == (1, True), said.err


def test_a_file_that_is_no_database_is_left_alone(shell: Shell) -> None:
    project(shell)
    shell.write("pilothouse.db", "this is no database, and it is long enough to be looked at" * 20)

    said = shell("runs", "list")

    assert (said.code, "is not a SQLite database" in said.err) == (1, True), said.err


def test_an_unreachable_postgresql_is_named_without_its_password(shell: Shell) -> None:
    said = shell("runs", "list", DATABASE_URL="postgresql://me:secret@127.0.0.1:1/db")

    assert (said.code, "127.0.0.1:1" in said.err, "secret" in said.err) == (1, True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not write")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    db = open_database(f"sqlite:///{tmp_path / 'pilothouse.db'}")

    os.seteuid(NOBODY)
    try:
        with pytest.raises(StoreError) as raised:
            db.start()
    finally:
        os.seteuid(0)

    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("name", ['say "hi"', "two words", "tab\there"])
def test_init_refuses_a_name_that_source_code_and_shells_could_not_hold(shell: Shell, name: str) -> None:
    said = shell("init", name)

    assert (said.code, "cannot be a project's name" in said.err) == (1, True)
    assert list(shell.folder.iterdir()) == []


def test_programs_learn_from_up_where_it_listens(shell: Shell) -> None:
    assert shell("init", "mine", "--json").json["files"] == [
        ".gitignore",
        "README.md",
        "agents.py",
        "pilothouse.toml",
        "workflow.yaml",
    ]
    mine = Shell(shell.folder / "mine")
    process = mine.start("up", "--port", "0", "--json", LOG_LEVEL="error")
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        with Client(said["url"]) as client:
            _wait_for_hello(client)
            submitted = client.submit("hello", {"name": "Ada"})
            assert client.wait(submitted["id"], timeout_seconds=30)["output"] == "Hello, Ada!"
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=WAIT_SECONDS)

    assert (process.returncode, rest) == (0, "")
    assert (said["roles"], said["agents"]) == (["api", "scheduler", "worker"], ["hello", "letter"])


def _wait_for_hello(client: Client) -> None:
    """The worker registers its agents a moment after the API answers."""

    def submits() -> bool:
        try:
            return bool(client.submit("hello", {"name": "Ada"}))
        except NotFound:
            return False

    until(submits, "the agent to be registered")


def test_debugging_shows_the_traceback(shell: Shell) -> None:
    process = shell.start("runs", "list", PILOTHOUSE_DEBUG="1")
    said, _ = process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 1
    assert "Traceback" in said
    assert "ConfigError: there is no database" in said


def test_init_does_not_touch_what_is_there(shell: Shell) -> None:
    shell.write("mine", "a file")

    assert "is not an empty folder" in shell("init", "mine").err
    assert (shell.folder / "mine").read_text() == "a file"


def test_a_broken_run_log_makes_db_check_fail(shell: Shell) -> None:
    path = database(shell)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO counters VALUES ('runs', 'a', 'normal', 'queued', 0, 5)")

    said = shell("db", "check")

    assert (said.code, "1 invariants are broken" in said.out) == (1, True)
    assert "counter 5, rows 0" in said.out


def test_reload_starts_again_when_a_source_changes(shell: Shell) -> None:
    project(shell)
    process = shell.start("up", "--reload", "--port", "0")
    try:
        until(lambda: shell("agents", "list").code == 0 and bool(shell("agents", "list", "--json").json), "up")

        project(shell, APP + AGENT.replace("hello", "goodbye"))

        until(lambda: "goodbye" in shell("agents", "list").out, "the change to be seen")
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0


@pytest.mark.slow
def test_the_demo_keeps_its_promises(shell: Shell) -> None:
    said = shell("demo", "--files", "25", "--json")

    assert said.code == 0, said.err
    figures = said.json
    assert (figures["files"], figures["runs"], figures["steps_executed_twice"]) == (25, 26, 0)
    assert figures["lost_attempts"] > 0
    assert Path(figures["report"]).read_text("utf-8").startswith("# Code audit of")


@pytest.mark.slow
def test_the_demo_of_governance_keeps_its_promises(shell: Shell) -> None:
    said = shell("demo", "governance", "--json")

    assert said.code == 0, said.err
    figures = said.json
    assert figures["problems"] == []
    assert (figures["spent_usd"], figures["searches"], figures["runs_waiting"]) == (1.0, 20, 20)
    assert (figures["refund_paid"], figures["wires"]) == (["$60.00"], 1)
    assert (figures["mails_started_after_switch"], figures["mails_sent"]) == (0, 150)
    others = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert figures["seconds"] < 60 * others, "a minute, on a machine that has nothing else to do"


def database(shell: Shell) -> Path:
    path = shell.folder / "pilothouse.db"
    db = open_database(f"sqlite:///{path}")
    db.start()
    migrate(db)
    db.close()
    return path
