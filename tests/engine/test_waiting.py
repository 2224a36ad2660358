"""Waiting in agent code: sleeps, signals, children, and the time-outs of all of them."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse import App, ChildError, Context, WaitTimeout
from pilothouse.domain.retries import Backoff
from pilothouse.errors import InvalidInput, NotFound
from tests.engine.conftest import Start

QUICK = Backoff(first_seconds=0.0)


async def test_a_sleeping_run_holds_no_slot_and_wakes_at_its_instant(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        await ctx.sleep("nap", hours=1)
        return "awake"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=3599)
    await platform.run_until_idle()
    before = (await platform.get(run_id))["state"]
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (before, (await platform.get(run_id))["state"]) == ("waiting", "succeeded")


async def test_wait_for_takes_a_signal_that_came_before(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Any:
        await ctx.sleep("nap", seconds=5)
        return await ctx.wait_for("paid", returns=int)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert await platform.signal(run_id, "paid", 12)
    assert not await platform.signal(run_id, "paid", 13)
    await platform.advance(seconds=6)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == 12


async def test_wait_for_gives_up_and_stays_given_up(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            return str(await ctx.wait_for("paid", timeout_seconds=10))
        except WaitTimeout:
            await ctx.sleep("nap", seconds=5)
            return "gave up"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=11)
    await platform.run_until_idle()
    await platform.signal(run_id, "paid", "late")
    await platform.advance(seconds=6)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "gave up"


async def test_the_results_of_many_children_come_in_order_and_wake_the_parent_once(start: Start) -> None:
    app = App("t")

    @app.agent(lane="low")
    async def square(ctx: Context, n: int) -> int:
        return n * n

    @app.agent
    async def agent(ctx: Context) -> list[int]:
        children = await ctx.start_many("squares", "square", [{"n": n} for n in range(40)])
        return await ctx.results("collect", children)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert run["output"] == [n * n for n in range(40)]
    assert run["attempt"] <= 2


async def test_a_child_that_failed_raises_in_its_parent(start: Start) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def broken(ctx: Context) -> None:
        raise ValueError("no luck")

    @app.agent
    async def agent(ctx: Context) -> str:
        child = await ctx.start("broken")
        try:
            await child.result()
        except ChildError as error:
            await ctx.sleep("nap", seconds=1)
            return f"{error.run_id == child.run_id} {error.state} {error}"
        return "unreachable"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    output = (await platform.get(run_id))["output"]
    assert output.startswith("True failed child run")
    assert output.endswith("no luck")


@pytest.mark.parametrize(
    ("agent_name", "input", "kind"), [("nobody", {}, NotFound), ("typed", {"n": "x"}, InvalidInput)]
)
async def test_a_child_that_does_not_fit_is_refused_and_nothing_is_stored(
    start: Start, agent_name: str, input: object, kind: type[Exception]
) -> None:
    app = App("t")

    @app.agent
    async def typed(ctx: Context, n: int) -> int:
        return n

    @app.agent
    async def agent(ctx: Context) -> str:
        with pytest.raises(kind):
            await ctx.start(agent_name, input)
        return "refused"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    timeline = await platform.timeline(run_id)
    assert timeline["run"]["output"] == "refused"
    assert (timeline["children"], timeline["steps"]) == ([], [])


async def test_a_wait_inside_a_step_is_refused(start: Start) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        async def nap() -> None:
            await ctx.sleep("inner", seconds=5)

        await ctx.step("outer", nap)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert "waits inside its function" in (await platform.get(run_id))["error"]["message"]


async def test_a_run_past_its_deadline_fails_even_while_it_waits(start: Start) -> None:
    app = App("t")

    @app.agent(run_timeout_seconds=60)
    async def agent(ctx: Context) -> None:
        await ctx.wait_for("never")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=61)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["error"]["type"]) == ("failed", "RunTimeout")


async def test_log_lines_are_not_repeated_on_replay(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> None:
        ctx.log("before")
        await ctx.step("a", len, "a")
        ctx.log("between", n=1)
        await ctx.sleep("nap", seconds=1)
        ctx.log("after")
        await ctx.wait_for("go")
        ctx.log("at last")
        ctx.progress(2, 3)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    await platform.signal(run_id, "go")
    await platform.run_until_idle()

    timeline = await platform.timeline(run_id)
    assert [line["message"] for line in timeline["logs"]] == ["before", "between", "after", "at last"]
    assert timeline["logs"][1]["fields"] == {"n": 1}
    assert (timeline["run"]["progress_done"], timeline["run"]["progress_total"]) == (2, 3)
