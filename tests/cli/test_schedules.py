"""Schedules from the command line."""

from __future__ import annotations

from tests.cli.conftest import Shell


def test_schedules_are_shown_paused_resumed_and_fired(up: Shell) -> None:
    (listed,) = up("schedules", "list", "--json").json
    assert (listed["name"], listed["state"], listed["cron"]) == ("yearly", "active", "0 0 1 1 *")
    assert len(listed["next_fires"]) == 5
    assert "yearly" in up("schedules", "list").out

    assert up("schedules", "pause", "yearly").out == "schedule yearly is paused\n"
    assert up("schedules", "show", "yearly", "--json").json["next_fires"] == []
    assert "is paused; it does not fire anyway" in up("schedules", "pause", "yearly").err
    assert up("schedules", "resume", "yearly", "--json").json["state"] == "active"

    fired = up("schedules", "fire", "yearly", "--json").json
    assert up("runs", "watch", fired["id"]).code == 0
    shown = up("schedules", "show", "yearly").out
    assert fired["id"] in shown
    assert "Europe/Paris" in shown


def test_an_unknown_schedule_is_named_with_what_comes_close(up: Shell) -> None:
    said = up("schedules", "fire", "yaerly")

    assert said.code == 1
    assert "there is no schedule 'yaerly'; did you mean 'yearly'?" in said.err


def test_a_schedule_that_cannot_be_is_refused_when_the_app_is_loaded(shell: Shell) -> None:
    source = """
from pilothouse import App
app = App("t")
@app.agent
def hello(name: str) -> str: return name
app.schedule("x", agent="hello", cron="0 2 * * *", input={"nam": "Ada"})
"""
    shell.write("broken.py", source)

    said = shell("up", "broken:app")

    assert said.code == 1
    assert "schedule 'x': the input does not fit agent 'hello': input.name" in said.err
