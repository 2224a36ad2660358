"""What runs meet near the end of a budget: shorter answers, a smaller route, kept answers, a wait that a grant ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.control import budgets, limits, run_budgets, timeline
from pilothouse.control.run_budgets import Grant
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.domain.prices import Price
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start

ROUTES = {
    "big": {"models": ["offline:echo"], "max_output_tokens": 1000},
    "small": {"models": ["offline:scripted:s.yaml"]},
}
PRICES = {"offline:echo": Price(100.0, 100.0), "offline:scripted:*": Price(1.0, 1.0)}
"""A token of the big model costs 100 micro-dollars, one of the small model a hundredth of that."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s.yaml").write_text("- say: small\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def app(folder: Path) -> App:
    app = App("t")

    @app.agent
    async def agent(ctx: Context, text: str = "hello", cache_seconds: float = 0.0) -> str:
        return await ctx.llm("ask", text, cache_seconds=cache_seconds)

    return app


async def open_platform(start: Start, app: App, **settings: Any) -> TestPlatform:
    return await start(app, **{"routes": ROUTES, "prices": PRICES, "degrade_route": "small"} | settings)


async def ask(platform: TestPlatform, **options: Any) -> list[dict[str, Any]]:
    """The calls of a run that has answered."""
    run_id = await platform.submit("agent", options)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "succeeded"
    return list((await platform.timeline(run_id))["model_calls"])


async def test_an_answer_is_held_to_what_is_affordable(start: Start, app: App) -> None:
    platform = await open_platform(start, app, max_run_usd=0.06)

    (call,) = await ask(platform)

    assert (call["outcome"], call["reason"], call["route"]) == ("answered", "over_limit", "big")
    assert call["message"].startswith("its answer was held to ")
    assert "of 1,000 tokens: the limit of run:" in call["message"]


async def test_the_smaller_route_answers_where_the_usual_one_is_too_dear(start: Start, app: App) -> None:
    platform = await open_platform(start, app, max_run_usd=0.02)

    refused, call = await ask(platform)

    assert (refused["outcome"], refused["reason"], refused["route"]) == ("skipped", "over_limit", "big")
    assert (call["outcome"], call["route"]) == ("answered", "small")


async def test_near_the_end_of_a_budget_the_smaller_route_is_asked_at_once(start: Start, app: App) -> None:
    platform = await open_platform(start, app, daily_budget_usd=1000.0, degrade_at=1.0)

    skipped, call = await ask(platform)

    assert (skipped["outcome"], skipped["reason"]) == ("skipped", "over_limit")
    assert "100% of the tightest budget is left" in skipped["message"]
    assert call["route"] == "small"


async def test_a_kept_answer_costs_nothing_and_is_given_when_nothing_else_is_affordable(start: Start, app: App) -> None:
    platform = await open_platform(start, app, degrade_route=None)
    await ask(platform, cache_seconds=3600.0)
    await limit_all(platform, 0)

    refused, call = await ask(platform)

    assert (refused["outcome"], refused["reason"]) == ("skipped", "over_limit")
    assert (call["outcome"], call["cost_microusd"]) == ("cached", 0)


async def limit_all(platform: TestPlatform, microusd: int | None) -> None:
    limit = Limit("global", Period.DAY, Unit.MICROUSD, microusd)
    await limits.set_limit(platform.db, limit, principal="test")


async def test_a_run_without_room_waits_says_so_and_goes_on_after_a_grant(start: Start, app: App) -> None:
    platform = await open_platform(start, app, max_run_usd=0.0)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    told = await timeline.why(platform.db, run_id)
    assert told["state"] == "waiting"
    assert f"it waits for room: the limit of run:{run_id} is $0.00: $0.00 spent, $0.00 reserved" in told["reasons"][0]
    assert told["reasons"][1] == "it does not go on by itself: that limit is the run's own"
    assert told["next"].startswith(f"give more: `pilothouse budget grant {run_id} --usd 0.")
    amount = round(float(told["next"].partition("--usd ")[2].strip("`")) * 1_000_000)

    granted = await run_budgets.grant(platform.db, Grant(run_id, Unit.MICROUSD, amount), principal="test")
    assert granted == (0, amount, ())
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "hello"
    explained = await run_budgets.explain(platform.db, run_id, UTC_CALENDAR)
    did = {
        rule.standing.account: explained.how(rule.standing) for rule in explained.rules if explained.how(rule.standing)
    }
    assert list(did) == [f"run:{run_id}"]
    assert "blocked" in did[f"run:{run_id}"]


async def test_a_run_that_waits_for_a_day_says_when_it_goes_on_and_a_raised_limit_wakes_it(
    start: Start, app: App
) -> None:
    platform = await open_platform(start, app, daily_budget_usd=0.0)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    told = await timeline.why(platform.db, run_id)
    assert "it waits for room: the limit of global for 20" in told["reasons"][0]
    assert "T00:00:00.000000Z, when the next period begins" in told["reasons"][1]
    assert "give more: `pilothouse budget set global --usd 0." in told["next"]
    (day, month), blocked = await platform.db.read(lambda tx: budgets.overview_in(tx, UTC_CALENDAR))
    assert (day.limit, month.limit, blocked) == (0, 500_000_000, 1)
    granted = await run_budgets.grant(platform.db, Grant(run_id, Unit.MICROUSD, 1), principal="test")
    assert [hit.account for hit in granted.waits] == ["global"]

    await limit_all(platform, 1_000_000)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "succeeded"
