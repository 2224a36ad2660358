"""Values that no store takes, from handlers and steps: the run fails and says why, and what it did before stands."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from pilothouse import App, Context
from tests.engine.conftest import Start


def circle() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


BAD: dict[str, Any] = {
    "nan": lambda: math.nan,
    "infinity": lambda: [1.0, {"deep": math.inf}],
    "lone surrogate": lambda: "\ud800",
    "lone surrogate as a key": lambda: {"\udfff": 1},
    "object": object,
    "huge number": lambda: 10**400,
    "circle": circle,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["step", "handler"])
async def test_a_value_that_cannot_be_stored_fails_the_run_and_says_so(start: Start, name: str, place: str) -> None:
    app = App("bad")

    async def fine() -> str:
        return "fine"

    async def bad() -> Any:
        return BAD[name]()

    @app.agent
    async def carrier(ctx: Context) -> Any:
        await ctx.step("before", fine)
        return await ctx.step("bad", bad) if place == "step" else BAD[name]()

    platform = await start(app)
    run_id = await platform.submit("carrier")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert run["error"]["type"] == "ResultError"
    assert "JSON" in run["error"]["message"]
    steps = {step["key"]: step["state"] for step in (await platform.timeline(run_id))["steps"]}
    assert steps["before"] == "succeeded"


@pytest.mark.parametrize("text", ["a\x00b", "\U0001f600", "\u2028", '"\\', "x" * 1_000_000])
async def test_text_that_looks_dangerous_is_kept_as_it_is(database_url: str, start: Start, text: str) -> None:
    app = App("odd")

    async def echo(value: str) -> str:
        return value

    @app.agent
    async def carrier(ctx: Context, value: str) -> list[str]:
        return [value, await ctx.step("echo", echo, value)]

    platform = await start(app, url=database_url)

    assert await platform.run("carrier", {"value": text}) == [text, text]


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _look(cls, name: str) -> str:
        raise ZeroDivisionError("the validator breaks")


async def test_an_input_type_that_breaks_fails_the_attempt_like_the_handler_itself(start: Start) -> None:
    app = App("bad")

    @app.agent(max_attempts=1)
    async def picky(input: Picky) -> None:
        raise AssertionError("never called")

    @app.agent
    async def other() -> str:
        return "fine"

    platform = await start(app)
    broken, fine = await platform.submit("picky", {"name": "Ada"}), await platform.submit("other")
    await platform.run_until_idle()

    run = await platform.get(broken)
    assert (run["state"], run["error"]["type"]) == ("failed", "ZeroDivisionError")
    assert (await platform.get(fine))["state"] == "succeeded"
