"""Budgets and costs from the command line, against a platform whose model has a price."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS

AGENTS = """
from pilothouse import App, Context

app = App("money")


@app.agent(max_cost_usd=0.06)
async def asker(ctx: Context, text: str = "hello") -> str:
    return await ctx.llm("ask", text)


@app.tool(effect="irreversible", platform="email", cost_usd=0.01)
async def send(to: str) -> str:
    return "sent"


@app.agent
async def mailer(ctx: Context, mails: int) -> int:
    for _ in range(mails):
        await ctx.tool(send, to="a@example.com")
    return mails
"""
SETTINGS = """
app = "desk:app"
daily_budget_usd = 0.5
[routes.big]
models = ["offline:echo"]
max_output_tokens = 1000
[prices."offline:echo"]
input_usd = 100
output_usd = 100
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder: Path = tmp_path_factory.mktemp("desk")
    shell = Shell(folder)
    shell.write("desk.py", AGENTS)
    shell.write("pilothouse.toml", SETTINGS)
    process = shell.start("up", "--port", "0")
    try:
        until(lambda: shell("agents", "list").code == 0 and len(shell("agents", "list", "--json").json) == 2, "up")
        yield shell
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said


def waiting(desk: Shell, agent: str, input: str) -> str:
    run_id = str(desk("submit", agent, input, "--json").json["id"])
    until(lambda: desk("runs", "show", run_id, "--json").json["run"]["state"] == "waiting", "the run to wait")
    return run_id


def ended(desk: Shell, run_id: str) -> str:
    return desk("runs", "watch", run_id).out


def test_a_clamped_answer_is_shown_explained_and_reported(desk: Shell) -> None:
    run_id = desk("submit", "asker", '{"text": "hello there"}', "--user", "ann", "--json").json["id"]
    assert "run.succeeded" in ended(desk, run_id)

    shown = desk("runs", "show", run_id).out
    assert "clamped by its own limit on dollars" in shown
    assert "over_limit: its answer was held to" in shown
    explained = desk("budget", "explain", run_id).out
    assert "app:money (run@asker)" in explained
    assert "clamped" in explained
    assert "route big: 1 call; at most 200 questions of a run (asked: 1), 200,000 tokens in" in explained
    (line,) = [each for each in desk("cost", "report", "--by", "user", "--json").json["items"] if each["user"] == "ann"]
    assert (line["runs"], line["succeeded_runs"], line["cost_microusd"]) == (1, 1, line["microusd_per_success"])


def test_a_run_that_waits_says_which_command_lets_it_go_on_and_it_does(desk: Shell) -> None:
    assert desk("budget", "set", "run@mailer", "--usd", "0.015").code == 0
    run_id = waiting(desk, "mailer", '{"mails": 2}')

    why = desk("runs", "why", run_id).out
    assert (
        f"it waits for room: the limit of run:{run_id} is $0.015: $0.01 spent, $0.00 reserved, and $0.01 wanted" in why
    )
    command = why.partition("give more: `pilothouse ")[2].partition("`")[0].split()
    assert command == ["budget", "grant", run_id, "--usd", "0.02"]
    assert f"next: give more: `pilothouse {' '.join(command)}`" in desk("budget", "explain", run_id).out
    assert desk(*command).out == f"run {run_id} may use $0.03, of which $0.01 are used\nthe run goes on\n"
    assert "run.succeeded" in ended(desk, run_id)
    assert "is succeeded; it uses nothing any more" in desk(*command).err
    assert desk("budget", "set", "run@mailer", "--usd", "none").out.endswith("is lifted (was $0.015)\n")


def test_limits_are_listed_set_and_warned_of(desk: Shell) -> None:
    desk("submit", "mailer", '{"mails": 1}', "--watch")

    said = desk("budget", "set", "tenant:default", "--actions", "1", "--reason", "careful")
    assert said.out == "the limit of tenant:default per day is 1 action (none before)\n"
    assert "warning: tenant:default has used" in said.err
    run_id = waiting(desk, "mailer", '{"mails": 1}')
    listed = desk("budget", "list")
    assert "■ used up" in listed.out
    assert "run@asker" in listed.out
    rows = {(row["account"], row["unit"]): row for row in desk("budget", "list", "--all", "--json").json}
    assert rows["tenant:default", "actions"]["level"] == "used_up"
    assert (f"run:{run_id}", "tokens") in rows
    granted = desk("budget", "grant", run_id, "--tokens", "9").out
    assert "it still waits for tenant:default" in granted
    why = desk("runs", "why", run_id).out
    assert "when the next period begins" in why
    assert desk("budget", "set", "tenant:default", "--actions", "none").code == 0
    assert "run.succeeded" in ended(desk, run_id)


def test_reports_come_as_table_csv_and_json(desk: Shell) -> None:
    desk("submit", "asker", "{}", "--watch")

    lines = desk("cost", "report", "--by", "model", "--format", "csv").out.splitlines()
    assert lines[0] == ("model,calls,tokens,actions,cost_usd,share,reserved_usd,runs,succeeded_runs,usd_per_success")
    assert any(line.startswith("offline:echo,") for line in lines)
    told = desk("cost", "report", "--by", "tenant", "--format", "json").json
    assert sum(each["share"] for each in told["items"]) == pytest.approx(1)
    assert "nothing was spent from 2020-01-01 to 2020-02-01" in (
        desk("cost", "report", "--from", "2020-01-01", "--to", "2020-02-01").out
    )
    assert "per success" in desk("cost", "report", "--by", "version").out
    assert "is after the last" in desk("cost", "report", "--from", "2026-02-01", "--to", "2026-01-01").err


def test_newer_prices_and_a_providers_export_are_compared_with_the_ledger(desk: Shell) -> None:
    desk("submit", "asker", "{}", "--watch")
    tried = desk("cost", "reprice", "--from", "2026-01-01", "--dry-run", "--json").json
    assert (tried["changed"], tried["booked"]) == (0, False)
    assert "something else by today's prices" in desk("cost", "reprice", "--from", "2026-01-01").out

    day = desk("cost", "report", "--by", "day", "--json").json["items"][-1]["day"]
    path = desk.write("theirs.csv", f"when,what,spent\n{day},echo,123.45\n")
    mapping = ("--map", "day=when", "--map", "model=what", "--map", "cost=spent")
    (row,) = desk("cost", "reconcile", str(path), *mapping, "--json").json["items"]
    assert (row["ours"], row["theirs_microusd"]) == (["offline:echo"], 123_450_000)
    assert "1 row left alone" in desk("cost", "reconcile", str(path), *mapping, "--book").out
    assert "the file has no column for the day" in desk("cost", "reconcile", str(path)).err
    assert "no_such.csv: No such file" in desk("cost", "reconcile", "no_such.csv").err


def test_nothing_unsettled_and_what_is_wrong_are_said(desk: Shell) -> None:
    assert desk("budget", "unsettled").out == "nothing is unsettled\n"
    assert "there is no reservation x" in desk("budget", "settle", "x", "--usd", "1").err
    assert "give one of --usd, --tokens" in desk("budget", "set", "global").err
    assert "'a lot' is no amount; write dollars" in desk("budget", "set", "global", "--usd", "a lot").err
    assert "is no scope" in desk("budget", "set", "everything", "--usd", "1").err
    assert (
        "for the whole run, not per month; leave --per out"
        in desk("budget", "set", "run:nobody", "--usd", "1", "--per", "month").err
    )
    assert "there is no run nobody" in desk("budget", "set", "run:nobody", "--usd", "1").err
    assert "a limit on calls is for runs" in desk("budget", "set", "global", "--calls", "1").err
    assert "there is no run nobody" in desk("budget", "explain", "nobody").err
    assert "say what the call has cost" in desk("budget", "settle", "x", "--usd", "none").err
