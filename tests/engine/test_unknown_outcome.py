"""A commit whose outcome is unknown: the worker finds out from what is there, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from pilothouse import App, Context
from pilothouse.errors import OutcomeUnknown
from pilothouse.store.database import Database, T, Work
from tests.engine.conftest import Start
from tests.patience import WAIT_SECONDS


def lie(db: Database, monkeypatch: pytest.MonkeyPatch, *, at: Callable[[int], bool], takes_place: bool) -> list[int]:
    """From now on the news of those of the worker's transactions is lost for which `at` its number says so."""
    tell, lost = db.transaction, []
    numbers = iter(range(10**9))

    async def transaction(work: Work[T], *, is_patient: bool = False) -> T:
        if not is_patient or not at(number := next(numbers)):
            return await tell(work, is_patient=is_patient)
        lost.append(number)
        if takes_place:
            await tell(work, is_patient=is_patient)
        raise OutcomeUnknown("whether it took place is unknown")

    monkeypatch.setattr(db, "transaction", transaction)
    return lost


def family(calls: list[str]) -> App:
    app = App("t")

    @app.agent
    async def parent(ctx: Context) -> list[str]:
        await asyncio.gather(*(ctx.step(f"step-{n}", calls.append, f"step-{n}") for n in range(3)))
        children = await ctx.start_many("children", "child", [{"name": name} for name in "ab"])
        results: list[str] = await ctx.results("results", children)
        return results

    @app.agent
    async def child(ctx: Context, name: str) -> str:
        await ctx.step("only", calls.append, name)
        return name

    return app


@pytest.mark.parametrize("takes_place", [True, False])
@pytest.mark.parametrize("number", range(9))
async def test_one_lost_answer_changes_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: int, takes_place: bool
) -> None:
    calls: list[str] = []
    platform = await start(family(calls))
    lost = lie(platform.db, monkeypatch, at=lambda n: n == number, takes_place=takes_place)

    async with asyncio.timeout(WAIT_SECONDS):
        output = await platform.run("parent")

    assert output == ["a", "b"]
    assert lost == [number], "fewer transactions than expected: this shows nothing"
    assert Counter(calls) == dict.fromkeys(["step-0", "step-1", "step-2", "a", "b"], 1)


@pytest.mark.parametrize("takes_place", [True, False])
async def test_many_lost_answers_change_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, takes_place: bool
) -> None:
    calls: list[str] = []
    platform = await start(family(calls))
    lie(platform.db, monkeypatch, at=lambda n: n % 2 == 0, takes_place=takes_place)
    ids = [await platform.submit("parent") for _ in range(20)]

    async with asyncio.timeout(WAIT_SECONDS):
        await platform.run_until_idle()

    assert [(await platform.get(id))["output"] for id in ids] == [["a", "b"]] * 20
    assert set(Counter(calls).values()) == {20}


async def test_a_refusal_whose_news_is_lost_is_refused_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def parent(ctx: Context) -> list[str]:
        return list(await asyncio.gather(ctx.step("fine", str, 1), refused(ctx)))

    async def refused(ctx: Context) -> str:
        return (await ctx.start("nobody")).run_id

    platform = await start(app)
    lie(platform.db, monkeypatch, at=lambda n: n in (1, 2), takes_place=True)
    run_id = await platform.submit("parent")

    async with asyncio.timeout(WAIT_SECONDS):
        await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["error"]["type"]) == ("failed", "NotFound")
