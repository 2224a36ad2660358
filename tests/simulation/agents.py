"""The agents of a simulated world: each of the ways in which a handler can go on, wait, fail and be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from random import Random
from typing import Any

from pilothouse.app import App
from pilothouse.domain.outcomes import Retry, Snooze
from pilothouse.domain.retries import Backoff, RetryPolicy
from pilothouse.engine.context import Context
from pilothouse.errors import ChildError, FatalError, WaitTimeout

Act = Callable[[Context, str], Awaitable[str]]
"""What a step does: it notes that it was executed, takes its time, and returns a token nobody else returns."""

QUICK = Backoff(first_seconds=0.5, limit_seconds=4.0)

TOKENS = frozenset({"chain", "fan", "narrow", "nap", "ask", "parent"})
"""Agents whose output is the list of what their steps returned."""


class Stage:
    """The world in which the agents play at the moment. They are made once; that costs as much as a world."""

    act: Act
    chance: Random

    def enter(self, act: Act, chance: Random) -> App:
        self.act, self.chance = act, chance
        return self.app

    @cached_property
    def app(self) -> App:
        return _make_app()


STAGE = Stage()


async def step(ctx: Context, name: str, *, tries: int = 1) -> str:
    async def work() -> str:
        return await STAGE.act(ctx, name)

    return await ctx.step(name, work, retry=RetryPolicy(attempts=tries, backoff=QUICK))


def _make_app() -> App:
    app = App("simulation")
    _add_those_that_step(app)
    _add_those_that_wait(app)
    _add_those_that_fail(app)
    return app


def _add_those_that_step(app: App) -> None:
    @app.agent(backoff=QUICK)
    async def chain(ctx: Context, steps: int) -> list[str]:
        ctx.log("begun")
        tokens = []
        for number in range(steps):
            tokens.append(await step(ctx, f"step-{number}"))
            ctx.progress(number + 1, steps)
        return tokens

    @app.agent(backoff=QUICK, lane="low")
    async def fan(ctx: Context, steps: int) -> list[str]:
        return list(await asyncio.gather(*(step(ctx, f"arm-{number}") for number in range(steps))))

    @app.agent(backoff=QUICK, max_running=2, max_running_per_key=1)
    async def narrow(ctx: Context) -> list[str]:
        return [await step(ctx, "first"), await step(ctx, "second")]

    @app.agent
    async def tick(ctx: Context) -> str:
        return await step(ctx, "tick")


def _add_those_that_wait(app: App) -> None:
    @app.agent(backoff=QUICK)
    async def nap(ctx: Context, seconds: float) -> list[str]:
        before = await step(ctx, "before")
        await ctx.sleep("nap", seconds=seconds)
        return [before, await step(ctx, "after")]

    @app.agent(backoff=QUICK, lane="critical")
    async def ask(ctx: Context) -> list[str]:
        before = await step(ctx, "before")
        try:
            await ctx.wait_for("answer", timeout_seconds=12.0)
        except WaitTimeout:
            return [before]
        return [before, await step(ctx, "after")]

    @app.agent(backoff=QUICK)
    async def parent(ctx: Context, children: int) -> list[str]:
        before = await step(ctx, "before")
        started = await ctx.start_many("children", "chain", [{"steps": 2}] * children)
        try:
            await ctx.results("results", started)
        except ChildError:
            return [before]
        return [before, await step(ctx, "after")]


def _add_those_that_fail(app: App) -> None:
    @app.agent(backoff=QUICK, max_attempts=5)
    async def moody(ctx: Context) -> Any:
        await step(ctx, "before", tries=3)
        mood = STAGE.chance.random()
        if mood < 0.3:
            raise RuntimeError("not now")
        if mood < 0.4:
            return Retry("later", after_seconds=1.0)
        if mood < 0.5:
            return Snooze(1.5)
        if mood < 0.55:
            raise FatalError("never")
        return await step(ctx, "after")

    @app.agent(backoff=QUICK, timeout_seconds=3.0, run_timeout_seconds=60.0, max_attempts=4)
    async def sluggish(ctx: Context) -> str:
        token = await step(ctx, "before")
        await asyncio.sleep(STAGE.chance.choice([0.0, 1.0, 8.0]))
        return token


def make_input(agent: str, chance: Random) -> dict[str, Any]:
    match agent:
        case "chain" | "fan":
            return {"steps": chance.randint(0, 4)}
        case "nap":
            return {"seconds": chance.choice([0.0, 0.5, 7.0, 20.0])}
        case "parent":
            return {"children": chance.randint(1, 3)}
        case _:
            return {}
