"""`pilothouse status`: what `/ready` says, and an exit code for scripts."""

from __future__ import annotations

from tests.cli.conftest import Shell, until


def test_it_is_ready_while_everything_runs(up: Shell) -> None:
    until(lambda: up("status").code == 0, "readiness")

    said = up("status")
    told = up("status", "--json")

    assert "Pilothouse is ready" in said.out
    assert (told.code, told.json["status"]) == (0, "ready")
    assert told.json["checks"].keys() >= {"database", "schema", "writes", "workers", "scheduler", "agents", "disk"}
    assert {check["status"] for check in told.json["checks"].values()} == {"ready"}


def test_a_full_disk_is_foreseen(up: Shell) -> None:
    said = up("status", PILOTHOUSE_LEAST_FREE_DISK_MB="999999999999")

    assert said.code == 1
    assert "less than 999999999999 MB" in said.out
    assert "next: pilothouse db storage" in said.out


def test_it_is_degraded_without_workers_and_scheduler(shell: Shell) -> None:
    assert shell("db", "migrate").code == 0

    told = shell("status", "--json")

    assert (told.code, told.json["status"]) == (1, "degraded")
    wrong = {name for name, check in told.json["checks"].items() if check["status"] == "degraded"}
    assert wrong == {"workers", "scheduler", "agents"}
    assert all(told.json["checks"][name]["command"].startswith("pilothouse ") for name in wrong)


def test_what_cannot_be_asked_is_not_ready(shell: Shell) -> None:
    missing = shell("status")
    away = shell("status", "--json", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    shell.write("pilothouse.toml", "no_such_setting = 1\n")
    wrong = shell("status")

    assert (missing.code, away.code, wrong.code) == (3, 3, 3)
    assert "there is no database at" in missing.out
    assert away.json["checks"]["database"]["status"] == "not_ready"
    assert "no_such_setting" in wrong.out
