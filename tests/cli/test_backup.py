"""Backup and restore from the command line."""

from __future__ import annotations

from tests.cli.conftest import Shell


def test_a_running_platform_is_backed_up_and_restored(up: Shell) -> None:
    run_id = up("submit", "hello", '{"name": "Ada"}', "--json").json["id"]
    assert up("runs", "watch", run_id).code == 0
    made = up("backup", "--to", "monday.gz", "--json").json
    assert made["rows"]["runs"] >= 1

    restored = up("restore", "monday.gz", "--to", "sqlite:///restored.db")
    assert restored.code == 0, restored.err
    assert "invariants hold" in restored.out
    shown = up("runs", "show", run_id, "--json", DATABASE_URL="sqlite:///restored.db").json
    assert shown["run"]["state"] == "succeeded"

    again = up("restore", "monday.gz", "--to", "sqlite:///restored.db")
    assert (again.code, "is not empty" in again.err) == (1, True)
    assert "there is no file nothing.gz" in up("restore", "nothing.gz").err
    assert "rows of" in up("backup").out
