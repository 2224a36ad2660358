"""Steps: they answer from their checkpoints, fail by their own policy, and refuse what would make replay a lie."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from pilothouse import App, Context, FatalError, RetryPolicy, StepError, SyncContext
from pilothouse.domain.retries import Backoff
from pilothouse.errors import Stopped
from pilothouse.testing import ScriptedModel
from tests.engine.conftest import Start

QUICK = Backoff(first_seconds=0.0)


@dataclass
class Point:
    x: int
    y: int


class Note(BaseModel):
    text: str


async def test_a_finished_step_answers_from_its_checkpoint_in_its_type(start: Start) -> None:
    app, calls = App("t"), []

    def locate(x: int) -> Point:
        calls.append(x)
        return Point(x, x + 1)

    @app.agent
    async def agent(ctx: Context) -> list[int]:
        point = await ctx.step("locate", locate, 3)
        await ctx.sleep("nap", seconds=1)
        return [point.x, point.y]

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == [3, 4]
    assert calls == [3]


async def test_what_a_step_returns_is_what_replay_will_return(start: Start) -> None:
    app = App("t")

    def pair() -> Any:
        return (1, {2: "two"})

    @app.agent
    async def agent(ctx: Context) -> Any:
        return [await ctx.step("pair", pair)]

    platform = await start(app)

    assert await platform.run("agent") == [[1, {"2": "two"}]]


async def test_a_step_is_tried_as_its_policy_says(start: Start) -> None:
    app, tries = App("t"), []

    def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "ok"

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.step("flaky", flaky, retry=RetryPolicy(5, QUICK, on=(ConnectionError,)))

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    (step,) = (await platform.timeline(run_id))["steps"]
    assert (step["state"], step["tries"], len(tries)) == ("succeeded", 3, 3)


async def test_an_error_outside_of_the_policy_is_not_tried_again(start: Start) -> None:
    app, tries = App("t"), []

    def broken() -> None:
        tries.append(1)
        raise ValueError("never right")

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        await ctx.step("broken", broken, retry=RetryPolicy(5, QUICK, on=(Exception,), unless=(ValueError,)))

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert len(tries) == 1
    assert (run["state"], run["error"]["type"], run["error"]["step"]) == ("failed", "ValueError", "broken")
    assert "never right" in run["error"]["traceback"]


async def test_a_failure_that_the_handler_went_past_is_replayed_as_the_same_failure(start: Start) -> None:
    app, tries = App("t"), []

    def broken() -> None:
        tries.append(1)
        raise ValueError("no")

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            await ctx.step("broken", broken)
        except StepError as error:
            await ctx.sleep("nap", seconds=1)
            return f"{error.step} {error.error_type} {error.message}"
        return "unreachable"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "broken ValueError no"
    assert len(tries) == 1


async def test_the_step_that_failed_an_attempt_is_executed_again_and_the_others_are_not(start: Start) -> None:
    app, calls = App("t"), []

    def note(name: str, *, fails: bool = False) -> None:
        calls.append(name)
        if fails and calls.count(name) == 1:
            raise OSError("first time")

    @app.agent(backoff=QUICK)
    async def agent(ctx: Context) -> None:
        await ctx.step("a", note, "a")
        await ctx.step("b", note, "b", fails=True)

    platform = await start(app)

    await platform.run("agent")

    assert calls == ["a", "b", "b"]


async def test_a_step_that_takes_too_long_fails(start: Start) -> None:
    app = App("t")

    async def endless() -> None:
        await asyncio.Event().wait()

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        await ctx.step("endless", endless, timeout_seconds=0.01)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    error = (await platform.get(run_id))["error"]
    assert (error["type"], error["message"], error["step"]) == ("TimeoutError", "no result within 0.01 s", "endless")


async def test_a_time_out_of_the_users_own_keeps_its_words(start: Start) -> None:
    app = App("t")

    async def impatient() -> None:
        raise TimeoutError("the bank did not answer")

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        await ctx.step("impatient", impatient, timeout_seconds=60)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["error"]["message"] == "the bank did not answer"


async def test_parallel_steps_keep_stable_keys(start: Start) -> None:
    app, calls = App("t"), []

    async def slow(n: int) -> int:
        calls.append(n)
        for _ in range(5 - n):
            await asyncio.sleep(0)
        return n

    async def branch(ctx: Context, n: int) -> int:
        first = await ctx.step(f"first-{n}", slow, n)
        await ctx.sleep(f"nap-{n}", seconds=n + 1)
        return first + await ctx.step(f"second-{n}", slow, n)

    @app.agent
    async def agent(ctx: Context) -> list[int]:
        return list(await asyncio.gather(*(branch(ctx, n) for n in range(4))))

    platform = await start(app)
    run_id = await platform.submit("agent")
    for _ in range(5):
        await platform.run_until_idle()
        await platform.advance(seconds=1)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == [0, 2, 4, 6]
    assert sorted(calls) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_a_branch_that_outlives_its_run_begins_nothing(start: Start) -> None:
    """Its steps would be paid and done, and nobody would ever know of them."""
    app, is_over, calls = App("t"), asyncio.Event(), list[str]()
    branches = list[asyncio.Task[None]]()

    @app.tool(effect="idempotent")
    async def pay() -> None:
        calls.append("pay")

    async def left_behind(ctx: Context) -> None:
        await is_over.wait()
        for begin in (lambda: ctx.tool(pay), lambda: ctx.step("s", calls.append, "s"), lambda: ctx.llm("ask", "?")):
            with pytest.raises(Stopped):
                await begin()

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        branches.append(asyncio.create_task(left_behind(ctx)))
        await asyncio.sleep(0)
        raise ValueError("the other branch fails")

    model = ScriptedModel([{"say": "never"}])
    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    is_over.set()
    await branches[0]

    assert (await platform.get(run_id))["state"] == "failed"
    assert (calls, model.asked) == ([], [])


async def test_a_step_inside_a_step_has_a_path(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> int:
        async def outer() -> int:
            return await ctx.step("inner", len, "abc")

        return await ctx.step("outer", outer)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    keys = {step["key"] for step in (await platform.timeline(run_id))["steps"]}
    assert keys == {"outer", "outer/inner"}


async def test_a_changed_request_is_a_named_divergence(start: Start) -> None:
    app, wanted = App("t"), ["first"]

    @app.agent
    async def agent(ctx: Context) -> None:
        await ctx.step("measure", len, wanted[0])
        await ctx.sleep("nap", seconds=1)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    wanted[0] = "second"
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    error = (await platform.get(run_id))["error"]
    assert (error["type"], error["step"]) == ("DivergenceError", "measure")
    assert "first" in error["message"].partition("found")[0]
    assert "second" in error["message"].partition("found")[2]


async def test_a_name_used_twice_is_refused_with_what_to_do(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> None:
        await ctx.step("x", len, "a")
        await ctx.step("x", len, "a")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    error = (await platform.get(run_id))["error"]
    assert (error["type"], error["step"]) == ("DuplicateStep", "x")
    assert "give each its own name" in error["message"]


@pytest.mark.parametrize("value", [object(), math.nan, {1, object()}, "\ud800"])
async def test_a_result_that_is_not_json_fails_the_run_by_name(start: Start, value: object) -> None:
    app = App("t")

    def make() -> Any:
        return value

    @app.agent
    async def by_step(ctx: Context) -> Any:
        return await ctx.step("make", make)

    @app.agent
    async def by_handler(ctx: Context) -> Any:
        return value

    platform = await start(app)
    runs = [await platform.submit("by_step"), await platform.submit("by_handler")]
    await platform.run_until_idle()

    errors = [(await platform.get(run_id))["error"] for run_id in runs]
    assert [error["type"] for error in errors] == ["ResultError", "ResultError"]
    assert "step 'make'" in errors[0]["message"]
    assert errors[0]["step"] == "make"
    assert "agent 'by_handler'" in errors[1]["message"]


async def test_a_fatal_error_inside_a_step_ends_the_run(start: Start) -> None:
    app, tries = App("t"), []

    def give_up() -> None:
        tries.append(1)
        raise FatalError("account closed")

    @app.agent(backoff=QUICK)
    async def agent(ctx: Context) -> None:
        await ctx.step("pay", give_up, retry=RetryPolicy(5, QUICK))

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"], len(tries)) == ("failed", 1, 1)


async def test_a_plain_handler_does_the_same_from_its_thread(start: Start) -> None:
    app, calls = App("t"), []

    def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    @app.agent
    def child(ctx: SyncContext, note: Note) -> str:
        return note.text.upper()

    @app.agent
    def agent(ctx: SyncContext, n: int) -> list[Any]:
        doubled = ctx.step("double", double, n)
        ctx.sleep("nap", seconds=5)
        told = ctx.start("child", {"text": "hello"}).result()
        answer = ctx.wait_for("go", returns=int)
        ctx.log("done", n=n)
        ctx.progress(1, 1)
        return [doubled, told, answer]

    platform = await start(app)
    run_id = await platform.submit("agent", {"n": 4})
    await platform.run_until_idle()
    await platform.advance(seconds=6)
    await platform.run_until_idle()
    await platform.signal(run_id, "go", 7)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == [8, "HELLO", 7]
    assert calls == [4]
