"""Autonomy, calibration and stability plans from the command line, beside a scheduler that moves the plan."""

from __future__ import annotations

from pilothouse.store.database import open_database
from tests.cli.conftest import Shell, until
from tests.control.decisions import decide


def decide_for(shell: Shell, agent: str, *decisions: str, action: str) -> None:
    fingerprint = shell("agents", "show", agent, "--json").json["fingerprint"]
    db = open_database(f"sqlite:///{shell.folder / 'pilothouse.db'}")
    db.start()
    decide(db, *decisions, agent=agent, fingerprint=fingerprint, action=action)
    db.close()


def test_an_action_is_promoted_on_evidence_only_and_demoted(up: Shell) -> None:
    refused = up("agents", "promote", "waits", "--action", "send")
    assert refused.code == 1
    assert "0 of 50 supervised actions are decided" in refused.err
    decide_for(up, "waits", *["approve"] * 50, action="send")

    listed = up("agents", "autonomy", "waits").out
    assert "94.2%" in listed
    assert "nothing: promote it" in listed
    assert "send is autonomous" in up("agents", "promote", "waits", "--action", "send").out
    assert "send is supervised" in up("agents", "demote", "waits", "--action", "send", "--reason", "odd").out
    (_, send) = up("agents", "autonomy", "waits", "--json").json
    assert (send["level"], send["reason"], send["evidence"]["decided"]) == ("supervised", "odd", 0)


def test_new_agents_start_supervised_where_the_setting_says_so(up: Shell) -> None:
    listed = up("agents", "autonomy", "hello", "--json", PILOTHOUSE_SUPERVISE_NEW_AGENTS="true").json

    assert listed[0]["level"] == "supervised"


def test_calibration_is_shown_as_a_table(up: Shell) -> None:
    decide_for(up, "hello", *["approve"] * 15, *["reject"] * 15, action="mail")

    shown = up("agents", "calibration", "hello").out

    assert "0.9 to 1.0" in shown
    assert "45.0%, limit 10%" in shown
    assert "1.00, lifted from 0.90" in shown
    assert up("agents", "calibration", "hello", "--json", CONFIDENCE_AUTO_THRESHOLD="0.5").json["threshold"] == 0.5
    assert "no decided action" in up("agents", "calibration", "broken").out


def test_scores_are_noted(up: Shell) -> None:
    scored = up("agents", "score", "broken", "0.9", "0.5", "0.5", "0.5", "0.5", "0.5", "--baseline", "0.8")

    assert scored.out == "agent broken: 6 scores are noted; it was returned to supervised\n"


def test_a_plan_is_moved_by_the_scheduler_reported_and_stopped(up: Shell) -> None:
    second = str(1 / 86_400)
    begun = up("stability", "start", "hello", "--days-scale", second, "--actions-per-day", "8")
    assert "1 of 4 (days 1-2): every action is approved" in begun.out
    assert "4 actions per day, target 8" in begun.out
    until(lambda: up("stability", "report", "hello", "--json").json["state"] == "unproven", "the end of the plan")

    report = up("stability", "report", "hello").out
    assert "not measured" in report
    assert "nobody reported scores" in report
    assert "unproven" in up("stability", "status").out

    assert up("stability", "start", "hello").code == 0
    assert up("stability", "stop", "hello", "--json").json["state"] == "stopped"
    assert "has had no stability plan" in up("stability", "report", "waits").err


def test_an_app_cannot_declare_its_agents_autonomous(shell: Shell) -> None:
    source = """
from pilothouse import App
app = App("t")
@app.agent(autonomy="autonomous")
def hello(name: str) -> str: return name
"""
    shell.write("bold.py", source)

    said = shell("up", "bold:app")

    assert (said.code, "more is earned" in said.err) == (1, True)
