"""Runbooks are gone through on a platform that is up: what reads is run, what changes something is asked for."""

from __future__ import annotations

import sys

import pytest

from pilothouse.cli.main import build
from pilothouse.cli.reading import only_reads
from pilothouse.control.runbooks import runbooks
from pilothouse.domain.runbooks import arguments_of, places_of
from tests.cli.conftest import Shell, Terminal


@pytest.fixture(scope="module")
def failed(up: Shell) -> str:
    """A run that has failed."""
    assert up("submit", "broken", "--watch").code == 1
    return str(up("dead", "list", "--json").json[0]["id"])


def test_every_step_that_only_reads_is_run_and_recorded(up: Shell) -> None:
    said = up("runbook", "run", "daily-checks", "--json")

    assert said.code == 0
    assert {each["outcome"] for each in said.json["commands"]} == {"done"}
    assert said.json["recorded"]
    assert up("audit", "tail", "-n", "1", "--action", "runbook.run", "--json").json["entity_id"] == "daily-checks"


def test_what_changes_something_is_left_out_where_nobody_can_be_asked(up: Shell, failed: str) -> None:
    said = up("runbook", "run", "wrong-outputs", "--set=agent=broken", f"--set=run={failed}", "--json")

    done = {each["command"].split()[2]: each["outcome"] for each in said.json["commands"]}
    assert done["demote"] == "left out"
    assert done["calibration"] == "done"
    assert up("switch", "list", "--json").json["switches"] == []


def test_every_command_that_only_reads_works(
    up: Shell, failed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"agent": "broken", "run": failed}
    lines = {command for each in runbooks().values() for step in each.steps for command in step.commands}
    commands = [arguments_of(line, given) for line in sorted(lines) if set(places_of(line)) <= given.keys()]
    monkeypatch.chdir(up.folder)
    monkeypatch.syspath_prepend(up.folder)
    monkeypatch.setitem(sys.modules, "agents", None)  # what was imported under this name is there again afterwards
    del sys.modules["agents"]

    for words in commands:
        if only_reads(words):
            code = build()(words, exit_on_error=False, print_error=False, result_action="return_value")
            assert not code, (words, capsys.readouterr())


def test_a_dry_run_changes_and_records_nothing(up: Shell, failed: str) -> None:
    before = up("audit", "tail", "-n", "1", "--action", "runbook.run", "--json").out

    said = up("runbook", "run", "runaway-agent", "--dry-run", "--set", f"run={failed}", "--set", "agent=broken")

    assert said.code == 0
    assert "would change something, and ask first" in said.out
    assert f"$ pilothouse runs cancel {failed} --lineage --dry-run" in said.out
    assert "steps 1 to 8 of 8" in said.out
    assert up("audit", "tail", "-n", "1", "--action", "runbook.run", "--json").out == before


def test_on_a_terminal_what_is_missing_is_asked_for_and_a_change_is_made_only_after_a_yes(up: Shell) -> None:
    with Terminal(up, "runbook", "run", "stuck-queue", columns=100) as terminal:
        terminal.until(r"go on\?")
        terminal.type("\n")
        terminal.until(r"run \(empty")
        terminal.type("\n")
        terminal.until("left out: it needs --set run=…")
        for _ in range(4):
            seen = terminal.seen.count("go on?")
            terminal.type("\n")
            terminal.until(rf"(?s)(go on\?.*){{{seen + 1}}}|agent \(empty")
        terminal.until(r"agent \(empty")
        terminal.type("hello\n")
        terminal.until("this changes something; run it")
        terminal.type("y\n")
        terminal.until("agent hello is suspended")
        terminal.until(r"(?s)(go on\?.*){6}")
        terminal.type("\n")
        terminal.until(r"(?s)(this changes something; run it.*){2}")
        terminal.type("y\n")
        terminal.until("agent hello goes on")
        assert terminal.wait() == 0

    told = up("audit", "tail", "-n", "1", "--action", "runbook.run", "--json").json
    assert "steps 1 to 7 of 7" in told["reason"]


def test_a_dry_run_on_a_terminal_does_not_stop_between_steps(up: Shell) -> None:
    with Terminal(up, "runbook", "run", "daily-checks", "--dry-run", columns=80) as terminal:
        assert terminal.wait() == 0

    assert "go on?" not in terminal.seen
    assert "steps 1 to 7 of 7" in terminal.seen


def test_who_quits_is_let_go(up: Shell) -> None:
    with Terminal(up, "runbook", "run", "daily-checks") as terminal:
        terminal.until(r"go on\?")
        terminal.type("q\n")
        assert terminal.wait() == 0

    assert "steps 1 to 1 of 7" in up("audit", "tail", "-n", "1", "--action", "runbook.run", "--json").json["reason"]


def test_runbooks_are_listed_and_shown_and_mistakes_are_named(up: Shell) -> None:
    assert "stuck-queue" in up("runbook", "list").out
    assert "## Escalation" in up("runbook", "show", "stuck-queue").out
    assert up("runbook", "show", "stuck-queue", "--json").json["places"] == ["run", "agent"]
    for arguments, told in (
        (("show", "nope"), "`pilothouse runbook list` shows them"),
        (("run", "nope"), "there is no runbook 'nope'"),
        (("run", "stuck-queue", "--set", "colour=red"), "takes run, agent"),
    ):
        said = up("runbook", *arguments)
        assert (said.code, told in said.err) == (1, True), said.err


def test_a_runbook_can_be_gone_through_while_there_is_no_database(shell: Shell) -> None:
    said = shell("runbook", "run", "database")

    assert "this is not in the audit: there is no database" in said.err
    assert "pg_stat_activity" in said.out
    assert said.code == 1


def test_a_profile_of_a_run_and_of_a_period(up: Shell, failed: str) -> None:
    one, spelled = up("profile", failed, "--json"), up("profile", "run", failed, "--json")
    period = up("profile", "report", "--since", "1h", "--json").json
    lines = up("profile-report", "--by", "step", "--csv").out.splitlines()

    assert one.json == spelled.json
    assert (one.json["runs"], one.json["by_step"][0]["step"]) == (1, "broken bad step")
    assert one.json["us"] == sum(one.json["where_time_went"].values())
    assert {"broken", "hello"} >= {line["agent"] for line in period["by_agent"]} >= {"broken"}
    assert lines[0].startswith("step,count,failed,us")
    assert any(line.startswith("broken bad step,") for line in lines)
    assert "where the time went" in up("profile", "report").out
    for arguments, told in (
        (("report", "--since", "yesterday"), "such as 30m, 24h or 7d"),
        (("report", "--csv"), "--csv needs --by"),
        (("report", "--since", "1h", "--until", "2h"), "ends before it begins"),
        (("nope",), "there is no run nope"),
    ):
        said = up("profile", *arguments)
        assert (said.code, told in said.err) == (1, True), said.err
