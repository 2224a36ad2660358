"""Kill switches from the command line."""

from __future__ import annotations

import json
import re
import subprocess

import httpx2

from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS


def test_a_switch_is_tripped_with_proof_listed_and_reset(up: Shell) -> None:
    assert up("switch", "list").out == "no switch is tripped\n"

    tripped = up("switch", "trip", "agent:waits", "--reason", "odd answers", "--verify")

    assert tripped.code == 0, tripped.err
    assert "switch agent:waits is tripped (hold)" in tripped.out
    assert "every live worker acts by it since" in tripped.out
    listed = up("switch", "list").out
    assert re.search(r"agent:waits\s+hold .* odd answers\s+all have acknowledged", listed)
    shown = up("switch", "list", "--json").json
    assert [(each["scope"], each["silent"]) for each in shown["switches"]] == [("agent:waits", [])]
    assert (shown["live_workers"], shown["disabled_workers"]) == (1, 0)

    run_id = up("submit", "waits", "{}", "--json").json["id"]
    why = up("runs", "why", run_id).out
    assert "queued: it is held by switch agent:waits (hold), tripped by cli:" in why
    assert "odd answers" in why
    assert "next: once it may go on: `pilothouse switch reset agent:waits`" in why
    assert up("switch", "reset", "agent:waits").out == "switch agent:waits is reset\n"
    until(lambda: up("runs", "show", run_id, "--json").json["run"]["state"] == "waiting", "the run to go on")
    up("runs", "signal", run_id, "go")
    assert up("runs", "watch", run_id).code == 0


def test_an_agent_is_suspended_and_resumed(up: Shell) -> None:
    assert up("agents", "suspend", "hello", "--reason", "weekend").out == "agent hello is suspended\n"
    run_id = up("submit", "hello", '{"name": "Ada"}', "--json").json["id"]
    assert "switch agent:hello (hold)" in up("runs", "why", run_id).out

    assert up("agents", "resume", "hello").out == "agent hello goes on\n"

    assert up("runs", "watch", run_id).code == 0
    assert "switch agent:hello is not tripped" in up("agents", "resume", "hello").err
    told = up("agents", "suspend", "nobody")
    assert (told.code, "no agent 'nobody' is registered" in told.out) == (0, True)
    assert up("agents", "resume", "nobody").code == 0


def test_an_abort_refuses_submits_with_the_way_out(up: Shell) -> None:
    assert up("switch", "trip", "lane:low", "--mode", "abort").code == 0

    refused = up("submit", "hello", '{"name": "Ada"}', "--lane", "low")

    assert refused.code == 1
    assert "switch lane:low (abort), tripped by cli:" in refused.err
    assert "`pilothouse switch reset lane:low`" in refused.err
    assert up("switch", "reset", "lane:low", "--json").json["released"] == 0


def test_a_wrong_scope_or_mode_says_what_would_be_right(up: Shell) -> None:
    wrong = up("switch", "trip", "agnet:hello")
    assert (wrong.code, "did you mean 'agent:hello'?" in wrong.err) == (1, True)
    assert up("switch", "trip", "global", "--mode", "off").code == 2
    assert up("switch", "reset", "global").code == 1


def announced_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    told = next(line for line in process.stdout if line.startswith('{"roles"'))
    return str(json.loads(told)["url"])


def test_an_engine_that_is_off_holds_everything_while_the_api_is_up(shell: Shell) -> None:
    assert shell("init", "mine").code == 0
    project = Shell(shell.folder / "mine")
    process = project.start("up", "--port", "0", "--json", ENGINE_ENABLED="false")
    try:
        until(lambda: project("agents", "list").code == 0 and bool(project("agents", "list", "--json").json), "up")
        run_id = project("submit", "hello", '{"name": "Ada"}', "--json").json["id"]
        url = announced_url(process)
        assert [httpx2.get(f"{url}{path}").status_code for path in ("/health", "/", "/api/v1/overview")] == [200] * 3

        why = project("runs", "why", run_id).out
        assert "every live worker that runs agent 'hello' was started with ENGINE_ENABLED=false" in why
        assert "1 of 1 live workers were started with ENGINE_ENABLED=false" in project("switch", "list").out
        assert project("switch", "trip", "global", "--verify").code == 0
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert project("runs", "show", run_id, "--json").json["run"]["attempt"] == 0
