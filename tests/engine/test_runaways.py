"""Runs that run away: halted with the evidence, known to the audit, and let go on by a person's word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control.timeline import why
from pilothouse.errors import StepError
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import RunawaySuspected
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start
from tests.engine.isolated_agents import app as isolated_app
from tests.patience import WAIT_SECONDS


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[RunawaySuspected]:
    """The events of this kind."""
    heard: list[RunawaySuspected] = []

    def emit(_emitter: object, event: Event) -> None:
        if isinstance(event, RunawaySuspected):
            heard.append(event)

    monkeypatch.setattr("pilothouse.telemetry.events.Emitter.emit", emit)
    return heard


async def halted(platform: TestPlatform, run_id: str) -> tuple[str, dict[str, Any]]:
    """The signal that a halted run waits for, and what its journal holds as evidence."""
    await platform.run_until_idle()
    story = await platform.timeline(run_id)
    assert story["run"]["state"] == "waiting", story["run"]["error"]
    (wait,) = story["waits"]
    (step,) = (step for step in story["steps"] if step["key"] == f"{wait['name']}.halted")
    assert step["kind"] == "runaway"
    assert "run.runaway_suspected" in [record["action"] for record in story["audit"]]
    told = await why(platform.db, run_id)
    assert "the run may have run away" in told["reasons"][0]
    command = f"pilothouse runs signal {run_id} {wait['name']}"
    assert told["next"] == f'let it go on: `{command}`, or end it: `{command} \'{{"stop": "why"}}\'`'
    return wait["name"], step["result"]


def looping(calls: list[int], limit: int) -> App:
    app = App("t")

    @app.tool(effect="read")
    async def look_up(order: int) -> str:
        calls.append(order)
        return "nothing new"

    @app.agent(max_attempts=1)
    async def loop(ctx: Context) -> int:
        for _ in range(limit):
            await ctx.tool(look_up, order=7)
        return limit

    return app


async def test_the_same_call_over_and_over_by_code_is_halted(start: Start, told: list[RunawaySuspected]) -> None:
    calls: list[int] = []
    platform = await start(looping(calls, 7), runaway_same_calls=3)
    run_id = await platform.submit("loop")

    signal, kept = await halted(platform, run_id)

    assert len(calls) == 3
    assert kept["reason"] == (
        "the run may have run away: tool 'look_up' was called 3 times with the same arguments and the same result"
    )
    assert (kept["evidence"]["times"], kept["evidence"]["result"]) == (3, '"nothing new"')
    assert [(event.run_id, event.signal) for event in told] == [(run_id, signal)]

    await platform.signal(run_id, signal, {"go": "on"})
    second, _ = await halted(platform, run_id)
    assert (second != signal, len(calls), len(told)) == (True, 6, 2)
    await platform.signal(run_id, second)
    await platform.run_until_idle()
    assert ((await platform.get(run_id))["output"], len(calls)) == (7, 7)


async def test_a_person_may_end_a_run_that_was_halted(start: Start) -> None:
    platform = await start(looping([], 9), runaway_same_calls=3)
    run_id = await platform.submit("loop")
    signal, _ = await halted(platform, run_id)

    await platform.signal(run_id, signal, {"stop": "it will never change"})
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert run["state"] == "failed"
    assert "stopped: it will never change" in run["error"]["message"]


@pytest.mark.parametrize(("limit", "same_calls"), [(20, 0), (20, 21)])
async def test_fewer_calls_or_no_rule_are_left_alone(start: Start, limit: int, same_calls: int) -> None:
    platform = await start(looping([], limit), runaway_same_calls=same_calls)

    assert await platform.run("loop") == limit


async def test_calls_of_other_arguments_or_results_are_others(start: Start) -> None:
    app, count = App("t"), [0]

    @app.tool(effect="read")
    async def poll(order: int) -> int:
        count[0] += 1
        return count[0]

    @app.tool(effect="pure")
    def same(order: int) -> str:
        return "same"

    @app.agent
    async def busy(ctx: Context) -> None:
        for order in range(9):
            await ctx.tool(poll, order=1)
            await ctx.tool(same, order=order)

    platform = await start(app, runaway_same_calls=2)

    await platform.run("busy")


async def test_calls_are_counted_over_rounds_steps_and_attempts(start: Start) -> None:
    """Two by code, a nap, two by models of different questions; side by side, and inside a step."""
    app, calls = App("t"), list[str]()

    @app.tool(effect="read")
    async def look_up(order: int) -> str:
        calls.append("x")
        return "nothing new"

    @app.agent(max_attempts=1)
    async def mixed(ctx: Context) -> str:
        await asyncio.gather(ctx.tool(look_up, order=7), ctx.tool(look_up, order=7))
        await ctx.sleep("nap", seconds=1)
        await ctx.llm("first", "look", tools=[look_up])

        async def inside() -> str:
            return str(await ctx.llm("second", "look again", tools=[look_up]))

        return await ctx.step("outer", inside)

    script: list[dict[str, Any]] = [
        {"when": {"after": "look_up"}, "say": "nothing"},
        {"call": {"tool": "look_up", "arguments": {"order": 7}}},
    ]
    platform = await start(app, runaway_same_calls=4, model=ScriptedModel(script))
    run_id = await platform.submit("mixed")
    await platform.run_until_idle()
    await platform.advance(seconds=2)

    signal, _ = await halted(platform, run_id)

    assert len(calls) == 4
    await platform.signal(run_id, signal)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "nothing"


async def test_the_same_error_caught_over_and_over_is_halted(start: Start, told: list[RunawaySuspected]) -> None:
    app, tries = App("t"), list[int]()

    def fail(number: int) -> None:
        tries.append(number)
        raise ValueError("the server says no")

    @app.agent(max_attempts=1)
    async def stubborn(ctx: Context) -> str:
        for number in range(6):
            try:
                await ctx.step(f"try {number}", fail, number)
            except StepError:
                continue
        return "gave up"

    platform = await start(app, runaway_same_errors=4)
    run_id = await platform.submit("stubborn")

    signal, kept = await halted(platform, run_id)

    assert "the same error came 4 times: ValueError: the server says no" in kept["reason"]
    assert (kept["evidence"]["step"], len(told)) == ("try 3", 1)
    await platform.signal(run_id, signal)
    await platform.run_until_idle()
    assert ((await platform.get(run_id))["output"], len(tries)) == ("gave up", 6)


async def test_a_run_that_burns_tokens_is_halted_once_there_is_history(start: Start) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def talk(ctx: Context, questions: int) -> int:
        for number in range(questions):
            await ctx.llm(f"question {number}", "tell me " + "more " * 50)
        return questions

    model = ScriptedModel([{"say": "so be it"}])
    platform = await start(app, model=model, is_frozen=True)
    for _ in range(25):
        await platform.run("talk", {"questions": 1})
    asked = len(model.asked)
    await platform.advance(seconds=61)
    run_id = await platform.submit("talk", {"questions": 12})

    signal, kept = await halted(platform, run_id)

    assert "tokens in this minute" in kept["reason"]
    assert kept["evidence"]["tokens"] > kept["evidence"]["limit"]
    assert 3 <= len(model.asked) - asked < 12
    await platform.advance(seconds=61)
    while (await platform.get(run_id))["state"] == "waiting":
        await platform.signal(run_id, signal)
        await platform.run_until_idle()
        if (await platform.get(run_id))["state"] == "waiting":
            signal, _ = await halted(platform, run_id)
    assert (await platform.get(run_id))["output"] == 12


async def test_agents_in_processes_of_their_own_are_halted_too(start: Start, told: list[RunawaySuspected]) -> None:
    platform = await start(
        isolated_app, is_frozen=False, runaway_same_calls=2, model=ScriptedModel([{"say": "an answer"}])
    )
    run_id = await platform.submit("calls", {"words": ["a", "a", "b"]})

    async with asyncio.timeout(WAIT_SECONDS):
        while (await platform.get(run_id))["state"] != "waiting":  # noqa: ASYNC110 - another process is looked at
            await asyncio.sleep(0.01)
    signal, _ = await halted(platform, run_id)

    assert [event.signal for event in told] == [signal]
    await platform.signal(run_id, signal)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == ["A", "A", "B", "an answer"]
