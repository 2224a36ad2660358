"""Agents in processes of their own: all operations work, and nothing they do reaches the worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilothouse import App, Context
from pilothouse.domain.policies import Decision, Rule
from pilothouse.errors import ConfigError
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start
from tests.engine.isolated_agents import app
from tests.patience import WAIT_SECONDS


@pytest.fixture
async def platform(start: Start) -> TestPlatform:
    return await start(app, is_frozen=False)


async def until(look: Callable[[], Any]) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := look()):  # noqa: ASYNC110 - another process is looked at
            await asyncio.sleep(0.01)
    return found


async def ended(platform: TestPlatform, agent: str, input: Any = None) -> dict[str, Any]:
    run_id = await platform.submit(agent, input)
    await platform.run_until_idle()
    return await platform.get(run_id)


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_every_operation_works_from_a_process_of_its_own(platform: TestPlatform) -> None:
    run_id = await platform.submit("everything", {"number": 20})
    await platform.signal(run_id, "word", "hello")
    async with asyncio.timeout(WAIT_SECONDS):
        while (run := await platform.get(run_id))["state"] not in ("succeeded", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert run["state"] == "succeeded", run["error"]
    assert (run["output"]["grown"], run["output"]["word"]) == (41, "hello")
    assert run["output"]["process"] != os.getpid()
    assert run["output"]["attempt"] > 1
    story = await platform.timeline(run_id)
    assert [line["message"] for line in story["logs"]] == ["begun"]
    assert [step["key"] for step in story["steps"] if step["kind"] == "step"] == ["double"]
    assert {attempt["state"] for attempt in story["attempts"]} == {"suspended", "succeeded"}


async def test_checkpoints_of_older_code_are_migrated_in_the_process(tmp_path: Path) -> None:
    older = App("isolated")

    @older.agent
    async def renamed(ctx: Context) -> str:
        found: str = await ctx.step("look up", str, "Ada")
        await ctx.wait_for("go")
        return found

    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with TestPlatform(older, url=url) as platform:
        run_id = await platform.submit("renamed")
        await platform.run_until_idle()

    async with TestPlatform(app, url=url) as platform:
        await platform.signal(run_id, "go")
        await platform.run_until_idle()
        run = await platform.get(run_id)

    assert (run["state"], run["output"]) == ("succeeded", "Ada"), run["error"]


async def test_attempts_see_the_secrets_of_their_agent_and_no_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_SECRET", "mine")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:password@host/db")
    monkeypatch.setenv("OTHER_SECRET", "not mine")
    platform = await start(app, is_frozen=False)

    seen = (await ended(platform, "environment"))["output"]

    assert seen["OWN_SECRET"] == "mine"
    assert "PATH" in seen
    assert not {"DATABASE_URL", "OTHER_SECRET"} & seen.keys()


@pytest.mark.parametrize(
    ("agent", "input", "told"),
    [
        ("exits", {"code": 3}, "ended with exit code 3 before its handler returned"),
        ("exits", {"code": 0}, "ended with exit code 0 before its handler returned"),
        ("kills_itself", None, "was killed by signal 9"),
        ("breaks_the_wire", None, "said what nobody knows"),
    ],
)
async def test_a_process_that_dies_fails_its_attempt_and_nothing_else(
    platform: TestPlatform, agent: str, input: Any, told: str
) -> None:
    run = await ended(platform, agent, input)

    assert run["state"] == "failed"
    assert run["error"]["type"] == "IsolationError"
    assert told in run["error"]["message"]
    assert await platform.run("in_the_worker") == os.getpid()
    assert (await platform.run("leaf", {"number": 1})) == 2


async def test_memory_is_limited(platform: TestPlatform) -> None:
    assert (await ended(platform, "eats", {"megabytes": 50}))["output"] == 50 * 1024 * 1024

    run = await ended(platform, "eats", {"megabytes": 400})

    assert (run["state"], run["error"]["type"]) == ("failed", "MemoryError")


async def test_a_handler_that_never_yields_is_killed_when_its_time_is_over(
    platform: TestPlatform, tmp_path: Path
) -> None:
    run = await ended(platform, "never_yields", {"evidence": str(tmp_path / "pid")})

    assert (run["state"], run["error"]["type"]) == ("failed", "AttemptTimeout")
    await until(lambda: not psutil.pid_exists(int(written(tmp_path / "pid"))))


async def test_what_a_process_has_forked_goes_with_it(platform: TestPlatform, tmp_path: Path) -> None:
    run = await ended(platform, "forks", {"evidence": str(tmp_path / "pid")})

    assert run["output"] == "returned"
    await until(lambda: _is_gone(int(written(tmp_path / "pid"))))
    assert (await ended(platform, "forks_itself"))["output"] == "returned"


async def test_a_cancel_lets_the_handler_clean_up_and_then_stops_it(platform: TestPlatform, tmp_path: Path) -> None:
    evidence = tmp_path / "pid"
    run_id = await platform.submit("waits_long", {"evidence": str(evidence)})
    process_id = int(await until(lambda: written(evidence)))

    await platform.cancel(run_id)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["state"] == "cancelled"
    assert (tmp_path / "pid.cleaned").exists()
    await until(lambda: _is_gone(process_id))


async def test_errors_come_with_their_type_and_traceback(platform: TestPlatform) -> None:
    run = await ended(platform, "fails")
    fatal = await ended(platform, "fails", {"fatal": True})

    assert (run["error"]["type"], run["error"]["message"]) == ("LookupError", "not found in attempt 2")
    assert "isolated_agents.py" in run["error"]["traceback"]
    assert (fatal["error"]["type"], fatal["attempt"]) == ("FatalError", 1)


async def test_a_server_that_dies_is_started_again(platform: TestPlatform) -> None:
    await platform.run("leaf", {"number": 1})
    started = servers()
    assert len(started) == 2, "one for each set of secrets"

    for server in started:
        server.send_signal(signal.SIGKILL)
    await until(lambda: all(_is_gone(server.pid) for server in started))

    assert await platform.run("leaf", {"number": 2}) == 3


async def test_nothing_is_left_when_the_worker_has_stopped(tmp_path: Path) -> None:
    async with TestPlatform(app, is_frozen=False) as platform:
        await platform.submit("waits_long", {"evidence": str(tmp_path / "pid")})
        process_id = int(await until(lambda: written(tmp_path / "pid")))

    await until(lambda: _is_gone(process_id))
    await until(lambda: not servers())


async def test_an_agent_that_cannot_be_imported_elsewhere_is_refused() -> None:
    local = App("local")

    @local.agent(isolation="process")
    async def inner(ctx: Context) -> None: ...

    with pytest.raises(ConfigError, match="agent 'inner': isolation='process' needs a function at the top"):
        async with TestPlatform(local, is_frozen=False):
            pass


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"isolation": "thread"}, "isolation is 'thread'; it is 'none' or 'process'"),
        ({"memory_mb": 100}, "memory_mb and secrets need isolation='process'"),
        ({"isolation": "process", "memory_mb": 1}, "memory_mb is 1"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], told: str) -> None:
    async def handler(ctx: Context) -> None: ...

    with pytest.raises(ConfigError, match=told):
        App("options").agent(**options)(handler)


def _is_gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def servers() -> list[psutil.Process]:
    """The fork servers of this process."""
    return [child for child in psutil.Process().children() if _is_server(child)]


def _is_server(process: psutil.Process) -> bool:
    try:
        return "pilothouse.engine.isolated" in process.cmdline()
    except psutil.NoSuchProcess:  # it has ended, and maybe nobody has asked yet how
        return False


async def test_models_tools_and_memory_are_reached_through_the_wall(start: Start) -> None:
    model = ScriptedModel(
        [
            {"when": {"contains": "refused"}, "fault": "rejected"},
            {
                "when": {"contains": "note", "after": "nothing"},
                "call": {"tool": "leave_note", "arguments": {"text": "x"}},
            },
            {"when": {"after": "leave_note"}, "say": "done"},
            {"say": "a story"},
        ]
    )
    platform = await start(app, is_frozen=False, model=model)

    first, second = await platform.run("asks"), await platform.run("asks")

    assert (first["times"], second["times"]) == (1, 2)
    assert (first["answer"], first["told"], first["note"]) == ("done", "a story", "mine under a key of 32")
    assert first["process"] != os.getpid()


async def test_what_a_process_asks_is_recorded_by_its_worker(start: Start) -> None:
    model = ScriptedModel([{"when": {"contains": "refused"}, "fault": "rejected"}, {"say": "done"}])
    platform = await start(app, is_frozen=False, model=model)
    good, bad = await platform.submit("asks"), await platform.submit("asks_in_vain")
    await platform.run_until_idle()

    calls = (await platform.timeline(good))["model_calls"]
    assert [(call["key"], call["outcome"], call["input_tokens"] > 0) for call in calls] == [
        ("ask", "answered", True),
        ("tell", "answered", True),
    ]
    failed = await platform.timeline(bad)
    assert (failed["run"]["state"], failed["run"]["error"]["type"]) == ("failed", "ModelRefused")
    assert [(call["outcome"], call["reason"]) for call in failed["model_calls"]] == [("failed", "rejected")]


async def test_people_are_asked_from_a_process_of_its_own(start: Start) -> None:
    devilish = Rule(then=Decision.DENY, tool="refund", amount_over_usd=600, reason="too much")
    platform = await start(app, is_frozen=False, policies={"devilish": devilish})
    run_id = await platform.submit("asker")

    async def asked() -> dict[str, Any]:
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := await platform.approvals(run_id)):  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.01)
        return found[0]

    plan = await asked()
    await platform.decide(plan["id"], "approve", arguments={"x": 2})
    refund = await asked()
    assert (refund["kind"], refund["action"], refund["arguments"]) == ("tool", "refund", {"amount_usd": 80})
    await platform.decide(refund["id"], "reject", note="not this one")
    async with asyncio.timeout(WAIT_SECONDS):
        while (run := await platform.get(run_id))["state"] not in ("succeeded", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert run["state"] == "succeeded", run["error"]
    assert run["output"][:3] == [{"x": 2}, "not this one", "tool 'refund' is denied: too much"]
    assert run["output"][3] != os.getpid()
    denied = await platform.db.read(lambda tx: tx.fetch_all("audit_of_entity", entity_id=run_id, after=0, limit=100))
    assert [row["reason"] for row in denied if row["action"] == "policy.denied"] == ["tool refund: too much"]
