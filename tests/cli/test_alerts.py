"""Alerts from the command line, with a scheduler that evaluates them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS

QUICK = {"PILOTHOUSE_ALERT_INTERVAL_SECONDS": "0.2", "PILOTHOUSE_ALERTS": '{"disk-low": {"enabled": false}}'}


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Shell]:
    """A project that looks five times a second whether all is well."""
    assert Shell(tmp_path)("init", "mine").code == 0
    shell = Shell(tmp_path / "mine")
    process = shell.start("up", "--port", "0", **QUICK)
    until(lambda: shell("agents", "list").code == 0 and bool(shell("agents", "list", "--json").json), "up")
    yield shell
    process.terminate()
    said, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said


def test_an_alert_is_seen_acknowledged_and_over(quick: Shell) -> None:
    up = quick
    assert "no alert fires; `pilothouse alerts rules`" in up("alerts", "list").out
    up("switch", "trip", "agent:hello", "--reason", "odd answers")
    until(lambda: up("alerts", "list", "--rule", "switch-tripped", "--json").json, "the alert to fire")

    listed = up("alerts", "list")
    assert "switch agent:hello is tripped (hold) by" in " ".join(listed.out.split())
    (row,) = up("alerts", "list", "--rule", "switch-tripped", "--json").json
    shown = up("alerts", "show", row["id"])
    assert "pilothouse runbook show runaway-agent" in shown.out
    assert "odd answers" in shown.out
    assert "acknowledged  cli:" in up("alerts", "acknowledge", row["id"], "--reason", "on it").out
    again = up("alerts", "acknowledge", row["id"])
    assert (again.code, "is acknowledged already, by cli:" in again.err) == (1, True)

    up("switch", "reset", "agent:hello")
    until(lambda: not up("alerts", "list", "--rule", "switch-tripped", "--json").json, "the alert to be over")
    over = up("alerts", "list", "--all", "--rule", "switch-tripped", "--json").json
    assert [each["state"] for each in over] == ["resolved"]


def test_rules_are_shown_as_the_settings_want_them(up: Shell) -> None:
    changed = {"PILOTHOUSE_ALERTS": '{"queue-depth": {"threshold": 7}}'}

    told = up("alerts", "rules", **changed)

    assert "≥ 7 runs" in told.out
    assert "disk-low" in told.out
    shown = {each["rule"]: each for each in up("alerts", "rules", "--json", **changed).json}
    assert shown["queue-depth"]["threshold"] == 7
    wrong = up("alerts", "rules", PILOTHOUSE_ALERTS='{"queue-deep": {"threshold": 7}}')
    assert (wrong.code, "did you mean 'queue-depth'?" in wrong.err) == (1, True)


def test_silences_tests_and_what_is_usual(up: Shell) -> None:
    made = up("alerts", "silence", "budget-*", "--agent", "refund*", "--minutes", "5", "--reason", "campaign")
    assert "holds until" in made.out, made.err
    (row,) = up("alerts", "silences", "--json").json
    assert "campaign" in up("alerts", "silences").out
    assert up("alerts", "unsilence", row["id"]).out == f"silence {row['id']} has ended\n"
    assert up("alerts", "silences").out == "nothing is silenced\n"

    refused = up("alerts", "test", "email")
    assert (refused.code, "alert_channels or approval_channels first" in refused.err) == (1, True)
    usual = up("alerts", "accept", "cost-drift", "hello")
    assert (usual.code, "has no baseline for cost-drift yet" in usual.err) == (1, True)
