"""Runs within limits: what is affordable is done, the rest waits with a reason and goes on when there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control import dead, limits
from pilothouse.control.limits import RunLimits
from pilothouse.domain.lanes import Lane, Slots
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.engine import limits as waiting
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start
from tests.engine.isolated_agents import app as isolated

DAY = 86_400
CENT = 10_000
MANY = Slots({Lane.CRITICAL: 0, Lane.NORMAL: 200, Lane.LOW: 0}, 0)
MODEL_PRICES = {"offline:*": {"input_usd": 0.0, "output_usd": 10.0}}
MONEY = (
    "SELECT coalesce(sum(settled_microusd), 0) AS settled, coalesce(sum(reserved_microusd), 0) AS reserved FROM ledger"
)
CALLS = 40


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sits out a wait in real time."""
    monkeypatch.setattr(waiting, "PATIENT_SECONDS", 0.001)


def shop(ordered: list[int], *, cost_usd: float = 0.01) -> App:
    app = App("t")

    @app.tool(effect="write", platform="shop", cost_usd=cost_usd)
    async def order(number: int) -> int:
        ordered.append(number)
        return number

    @app.agent
    async def buyer(ctx: Context, first: int = 0, count: int = 1) -> list[int]:
        return [await ctx.tool(order, number=first + place) for place in range(count)]

    return app


async def limit_to(platform: TestPlatform, amount: int | None, scope: str = "global", **options: Any) -> None:
    period = Period.RUN if scope.startswith("run") else Period.DAY
    limit = Limit(scope, period, options.get("unit", Unit.MICROUSD), amount)
    await limits.set_limit(platform.db, limit, principal="test")


async def states(platform: TestPlatform, ids: list[str]) -> Counter[str]:
    return Counter([(await platform.get(id))["state"] for id in ids])


async def settled(platform: TestPlatform) -> tuple[int, int]:
    (row,) = await asyncio.to_thread(lambda: platform.db.examine(lambda tx: tx.fetch_all(MONEY)))
    return row["settled"], row["reserved"]


async def why(platform: TestPlatform, run_id: str) -> str:
    told = await platform.timeline(run_id)
    return str(next(each["reason"] for each in reversed(told["audit"]) if each["action"] == "run.suspended"))


async def test_forty_runs_share_a_budget_to_the_last_cent(database_url: str, start: Start) -> None:
    ordered: list[int] = []
    platform = await start(shop(ordered), url=database_url, slots=MANY)
    await limit_to(platform, 25 * CENT)

    ids = [await platform.submit("buyer", {"first": n}) for n in range(CALLS)]
    await until_settled(platform)
    first = await states(platform, ids), len(ordered), await settled(platform)
    reasons = {await why(platform, id) for id in ids if (await platform.get(id))["state"] == "waiting"}
    await platform.advance(seconds=DAY)
    await platform.run_until_idle()

    assert first == ({"succeeded": 25, "waiting": 15}, 25, (25 * CENT, 0))
    assert all("is $0.25: $0.25 spent, $0.00 reserved, and $0.01 wanted" in each for each in reasons)
    assert await states(platform, ids) == {"succeeded": CALLS}
    assert sorted(ordered) == list(range(CALLS))


async def until_settled(platform: TestPlatform) -> None:
    """Until nobody waits for what others hold."""
    for _ in range(4):
        await platform.run_until_idle()
        await platform.advance(seconds=10)
    await platform.run_until_idle()


async def test_forty_runs_ask_models_for_what_a_budget_affords(database_url: str, start: Start) -> None:
    """Each reserves ten times of what it uses, and none is put off until tomorrow while others give back."""
    app, model = App("t"), ScriptedModel([{"say": "x " * 100}])

    @app.agent
    async def asker(ctx: Context, number: int) -> str:
        return await ctx.llm("ask", f"What is {number}?")

    routes = {"default": {"models": ["openai:gpt-5-mini"], "max_output_tokens": 1000}}
    options: Any = {"model": model, "slots": MANY, "routes": routes, "prices": MODEL_PRICES}
    platform = await start(app, url=database_url, **options)
    budget = 30_000
    await limit_to(platform, budget)

    ids = [await platform.submit("asker", {"number": n}) for n in range(CALLS)]
    for _ in range(30):
        await platform.run_until_idle()
        await platform.advance(seconds=10)
    await platform.run_until_idle()
    spent, held = await settled(platform)

    assert held == 0
    assert budget - 2_560 < spent <= budget
    done = await states(platform, ids)
    assert done["succeeded"] == spent // 1_000 == len(model.asked)
    assert done["succeeded"] + done["waiting"] == CALLS


async def test_two_hundred_blocked_runs_go_on_when_the_limit_is_raised(start: Start) -> None:
    ordered: list[int] = []
    platform = await start(shop(ordered), slots=MANY)
    await limit_to(platform, 0)
    ids = [await platform.submit("buyer", {"first": n}) for n in range(200)]
    await platform.run_until_idle()
    before = await states(platform, ids)

    await limit_to(platform, 200 * CENT)
    await platform.run_until_idle()

    assert before == {"waiting": 200}
    assert await states(platform, ids) == {"succeeded": 200}
    assert sorted(ordered) == list(range(200))


async def test_a_budget_lowered_below_what_is_spent_stops_what_runs_and_loses_nothing(start: Start) -> None:
    ordered: list[int] = []
    app, hooks = shop(ordered), list[Callable[[], Any]]()

    @app.agent
    async def saver(ctx: Context) -> list[int]:
        first = await ctx.tool("order", number=1)
        await ctx.step("lower", hooks[0])
        return [first, await ctx.tool("order", number=2)]

    platform = await start(app)
    await limit_to(platform, 100 * CENT)
    hooks.append(lambda: limit_to(platform, 1))

    run_id = await platform.submit("saver")
    await platform.run_until_idle()
    between = (await platform.get(run_id))["state"], list(ordered)
    await limit_to(platform, 2 * CENT)
    await platform.run_until_idle()

    assert between == ("waiting", [1])
    assert (await platform.get(run_id))["output"] == [1, 2]
    assert ordered == [1, 2]
    assert await settled(platform) == (2 * CENT, 0)


@pytest.mark.parametrize("scope", ["run:{}", "run@buyer", "run:*"])
async def test_a_run_that_has_made_all_its_calls_goes_on_once_it_is_granted_more(start: Start, scope: str) -> None:
    ordered: list[int] = []
    platform = await start(shop(ordered), max_run_tool_calls=3)

    run_id = await platform.submit("buyer", {"count": 5})
    await platform.run_until_idle()
    between, reason = (await platform.get(run_id))["state"], await why(platform, run_id)
    await limit_to(platform, 5, scope.format(run_id), unit=Unit.CALLS)
    await platform.run_until_idle()

    assert between == "waiting"
    assert "is 3 calls: 3 calls spent, 0 calls reserved, and 1 call wanted" in reason
    assert (await platform.get(run_id))["output"] == [0, 1, 2, 3, 4]
    assert ordered == [0, 1, 2, 3, 4]


async def test_a_process_of_its_own_makes_no_more_calls_than_its_run_may(start: Start) -> None:
    platform = await start(isolated, is_frozen=False, max_run_tool_calls=2, model=ScriptedModel([{"say": "Hello"}]))

    run_id = await platform.submit("calls", {"words": ["a", "b", "c"]})
    await platform.run_until_idle()
    between = (await platform.get(run_id))["state"]
    await limit_to(platform, 3, f"run:{run_id}", unit=Unit.CALLS)
    await platform.run_until_idle()

    assert between == "waiting"
    assert (await platform.get(run_id))["state"] == "succeeded"


async def test_a_run_may_spend_so_much_and_more_once_it_is_granted(start: Start) -> None:
    ordered: list[int] = []
    platform = await start(shop(ordered), max_run_usd=0.03)

    run_id = await platform.submit("buyer", {"count": 5})
    await until_settled(platform)
    between = (await platform.get(run_id))["state"], len(ordered)
    await platform.advance(seconds=40 * DAY)
    await platform.run_until_idle()
    later = (await platform.get(run_id))["state"]
    await limit_to(platform, 5 * CENT, f"run:{run_id}")
    await platform.run_until_idle()

    assert (between, later) == (("waiting", 3), "waiting")
    assert (await platform.get(run_id))["output"] == [0, 1, 2, 3, 4]


def worker_app(seconds: float) -> App:
    app = App("t")

    @app.agent
    async def worker(ctx: Context) -> str:
        """It calls no tool."""
        await asyncio.sleep(seconds if ctx.attempt == 1 else 0)
        return "done"

    return app


async def test_a_run_that_works_too_long_fails_and_goes_on_once_it_is_granted_more(start: Start) -> None:
    platform = await start(worker_app(30), is_frozen=False, max_run_seconds=1)

    run_id = await platform.submit("worker")
    await platform.run_until_idle()
    failed = await platform.get(run_id)
    await limit_to(platform, 60, f"run:{run_id}", unit=Unit.SECONDS)
    await asyncio.sleep(0.3)  # until the worker has looked again
    await dead.redrive_run(platform.db, run_id, principal="test")
    await platform.run_until_idle()

    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "RunTimeout"
    assert (await platform.get(run_id))["output"] == "done"


async def test_a_run_that_is_granted_more_while_it_works_is_not_stopped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([0.05])
    monkeypatch.setattr(
        RunLimits, "of", lambda _self, _run, _agent, unit: (next(left, 60) if unit == Unit.SECONDS else None, 1)
    )
    platform = await start(worker_app(0.3), is_frozen=False)

    assert await platform.run("worker") == "done"
    assert next(left, None) is None
