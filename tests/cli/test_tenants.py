"""Tenants from the command line, on a platform that runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate
from tests.cli.conftest import Shell, Terminal, until
from tests.control.steps import card, register, request, submit_all


def test_a_tenant_is_listed_shown_exported_and_erased(up: Shell) -> None:
    for tenant in ("acme", "globex"):
        run_id = up("submit", "hello", '{"name": "Ada"}', "--tenant", tenant, "--json").json["id"]
        assert up("runs", "watch", run_id).code == 0
    listed = {each["tenant"]: each for each in up("tenants", "list", "--json").json}
    assert (listed["acme"]["runs"], listed["acme"]["state"]) == (1, "active")
    assert "acme" in up("tenants", "list").out
    assert "runs" in up("tenants", "show", "acme").out
    told = up("tenants", "export", "acme", "--output", "acme.jsonl")
    assert "of tenant acme in acme.jsonl" in told.out
    lines = [json.loads(line) for line in (up.folder / "acme.jsonl").read_text("utf-8").splitlines()]
    assert "globex" not in str(lines)

    refused = up("tenants", "erase", "acme")
    assert (refused.code, "say that you mean it: --yes" in refused.err) == (1, True)
    erased = up("tenants", "erase", "acme", "--yes", "--reason", "left")
    assert erased.code == 0, erased.err
    assert "tenant acme: erased 1 runs" in erased.out
    assert "acme" not in up("tenants", "list").out
    verified = up("audit", "verify").out
    assert "records of tenant acme were erased by cli:" in verified
    checked = up("db", "check")
    assert (checked.code, "nothing is left of an erased tenant" in checked.out) == (0, True)
    assert "there is no tenant 'nobody'" in up("tenants", "erase", "nobody", "--yes").err


def test_runs_that_still_run_are_stopped_first(up: Shell) -> None:
    run_id = up("submit", "waits", "--tenant", "initech", "--json").json["id"]
    until(lambda: up("runs", "show", run_id, "--json").json["run"]["state"] == "waiting", "the run to wait")

    refused = up("tenants", "erase", "initech", "--yes")
    assert "1 runs of tenant 'initech' have not ended" in refused.err
    assert up("tenants", "erase", "initech", "--yes", "--cancel").code == 0
    assert "there is no run" in up("runs", "show", run_id).err


def test_on_a_terminal_the_name_is_asked_for(shell: Shell) -> None:
    shell("db", "migrate")

    with Terminal(shell, "tenants", "erase", "acme") as terminal:
        terminal.until("Type the tenant's name to go on")
        terminal.type("globex\n")
        assert terminal.wait() == 1
        assert "nothing was erased" in terminal.seen


@pytest.mark.crash
def test_an_erasure_that_was_killed_is_carried_on(shell: Shell) -> None:
    fill(shell.folder / "pilothouse.db")
    for _ in range(3):
        kill_midway(shell)

    done = shell("tenants", "erase", "acme", "--yes", "--json", DATABASE_URL="sqlite:///pilothouse.db").json

    assert (done["state"], done["runs"]) == ("done", 20_000)
    checked = shell("db", "check", DATABASE_URL="sqlite:///pilothouse.db")
    assert checked.code == 0, checked.out


def kill_midway(shell: Shell) -> None:
    before = progress(shell)
    process = shell.start("tenants", "erase", "acme", "--yes", "--cancel", DATABASE_URL="sqlite:///pilothouse.db")
    until(lambda: progress(shell) > before or process.poll() is not None, "some runs to be gone")
    process.send_signal(signal.SIGKILL)
    process.communicate()


def fill(path: Path) -> None:
    db = open_database(f"sqlite:///{path}?synchronous=normal")
    db.start()
    migrate(db)
    register(db, card("echo"))
    for _ in range(40):
        submit_all(db, *(request(tenant="acme") for _ in range(500)))
    db.close()


def progress(shell: Shell) -> int:
    said = shell("tenants", "show", "acme", "--json", DATABASE_URL="sqlite:///pilothouse.db")
    erasure = said.json["erasure"] if said.code == 0 else None
    return int(erasure["runs"]) if erasure else 0
