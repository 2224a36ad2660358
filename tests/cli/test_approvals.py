"""Approvals and policies on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, until

AGENTS = '''
from pilothouse import App, SyncContext

app = App("desk")


@app.tool(effect="write", amount="amount_usd")
def refund(order: int, amount_usd: float) -> str:
    """Pays back."""
    return f"paid {amount_usd:g}"


@app.agent
def desk(ctx: SyncContext, amount_usd: float = 80) -> str:
    return ctx.tool(refund, order=7, amount_usd=amount_usd)


@app.policy
def odd(proposal, facts):
    return None
'''

TOML = """
app = "desk:app"

[policies.large]
tool = "refund"
amount_over_usd = 50
then = "ask"
reason = "large refunds"
"""

CASES = """
[[cases]]
name = "small"
proposal = {tool = "refund", amount = 5}
verdict = "allow"

[[cases]]
name = "as the tool declares its amount"
proposal = {tool = "refund", arguments = {order = 7, amount_usd = 80}}
verdict = "ask"

[[cases]]
name = "large"
proposal = {tool = "refund", amount = 80}
verdict = "ask"
rules = ["large", "amount"]
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder: Path = tmp_path_factory.mktemp("desk")
    shell = Shell(folder)
    shell.write("desk.py", AGENTS)
    shell.write("pilothouse.toml", TOML)
    shell.write("cases.toml", CASES)
    process = shell.start("up", "--port", "0", LOG_LEVEL="warning")
    try:
        until(lambda: shell("agents", "list", "--json").out.startswith('[{"name":"desk"'), "the worker to be there")
        yield shell
    finally:
        process.terminate()
        process.communicate()


def asked(shell: Shell) -> tuple[str, str]:
    """A new run that waits for a person, and the approval."""
    run = shell("submit", "desk", "{}", "--json").json["id"]
    until(lambda: bool(shell("approvals", "list", "--run", run, "--json").json), "the run to ask")
    return run, shell("approvals", "list", "--run", run, "--json").json[0]["id"]


def test_a_refund_is_looked_at_edited_and_approved(desk: Shell) -> None:
    run, id = asked(desk)

    listed = desk("approvals", "list")
    assert id in listed.out
    shown = desk("approvals", "show", id)
    for part in ("refund(order=7, amount_usd=80.0)", "large refunds", "80.00 USD", '"order": 7', f"approve {id}"):
        assert part in shown.out
    why = desk("runs", "why", run)
    assert f"waits for approval {id}" in why.out
    assert f"pilothouse approvals approve {id}" in why.out
    wrong = desk("approvals", "approve", id, "--arguments", '{"order": "x", "amount_usd": 5}')
    assert (wrong.code, "arguments.order" in wrong.err) == (1, True)
    desk.write("edited.json", '{"order": 7, "amount_usd": 50}')
    done = desk("approvals", "approve", id, "--arguments", "@edited.json", "--note", "half of it")
    assert (done.code, "its run goes on" in done.out) == (0, True)
    assert desk("runs", "watch", run).code == 0
    assert desk("runs", "show", run, "--json").json["run"]["output"] == "paid 50"
    assert "half of it" in desk("runs", "show", run).out
    again = desk("approvals", "reject", id, "--reason", "no")
    assert (again.code, "that decision stands" in again.err) == (1, True)


def test_what_is_sent_back_given_away_and_rejected(desk: Shell) -> None:
    run, id = asked(desk)

    assert desk("approvals", "delegate", id, "key:nobody").code == 1
    assert desk("approvals", "delegate", id, "cli:grace", "--json").json["assigned_to"] == "cli:grace"
    assert desk("approvals", "reject", id).code == 2
    assert desk("approvals", "revise", id, "--note", "ask her first", "--json").json["state"] == "returned"
    assert desk("runs", "watch", run).code == 1
    assert "RevisionRequested" in desk("runs", "show", run).out
    assert desk("approvals", "show", "nothing").code == 1


def test_policies_are_listed_explained_and_tested(desk: Shell) -> None:
    assert "large refunds" in desk("policy", "list").out
    listed = {item["name"]: item["kind"] for item in desk("policy", "list", "--json").json["items"]}
    assert (listed["large"], listed["odd"], listed["risk"]) == ("settings", "python", "built_in")
    said = desk("policy", "explain", "--agent", "desk", "--action", "refund", "--amount", "80", "--risk", "4")
    assert all(part in said.out for part in ("ask", "large refunds", "2 different people"))
    declared = desk("policy", "explain", "--action", "refund", "--arguments", '{"order": 7, "amount_usd": 80}')
    assert all(part in declared.out for part in ("ask", "large refunds", "a tool of effect write", "80.00 USD"))
    watched = desk("policy", "explain", "--action", "refund", "--autonomy", "supervised", "--json").json
    assert (watched["decision"], watched["reasons"][0]["rule"]) == ("ask", "autonomy")
    assert "the App has no tool 'refnd'; it has refund" in desk("policy", "explain", "--action", "refnd").out
    assert desk("policy", "explain", "--action", "refund", "--amount", "-1").code == 2
    assert desk("policy", "test", "cases.toml").code == 0
    desk.write("wrong.toml", CASES + '\n[[cases]]\nname = "odd one"\nproposal = {tool = "refund"}\nverdict = "deny"\n')
    failed = desk("policy", "test", "wrong.toml")
    assert (failed.code, "1 of 4 cases failed: odd one" in failed.out) == (1, True)
