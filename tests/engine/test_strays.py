"""An attempt that its live worker has forgotten is given up, and its run goes on."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse import App, Context
from pilothouse.control.attempts import Settlement
from pilothouse.engine import strays
from pilothouse.engine.attempt import OnSettled
from pilothouse.engine.pump import Pump
from pilothouse.errors import StoreError
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import Emitter, RunDropped
from tests.engine.conftest import Start
from tests.patience import WAIT_SECONDS


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "LOOK_SECONDS", 0.05)


async def test_a_run_whose_attempt_was_forgotten_goes_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forgotten: list[Settlement] = []
    settle = Pump.settle

    def forget_the_first(self: Pump, settlement: Settlement, on_settled: OnSettled) -> None:
        if forgotten:
            settle(self, settlement, on_settled)
        else:
            forgotten.append(settlement)
            on_settled(False)

    app = App("t")

    @app.agent
    async def forgetful(ctx: Context) -> int:
        await ctx.step("once", calls.append, 1)
        return ctx.attempt

    monkeypatch.setattr(Pump, "settle", forget_the_first)
    platform = await start(app, is_frozen=False)
    run_id = await platform.submit("forgetful")
    async with asyncio.timeout(WAIT_SECONDS):
        while (await platform.get(run_id))["state"] != "succeeded":  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    story = await platform.timeline(run_id)
    assert [attempt["state"] for attempt in story["attempts"]] == ["lost", "succeeded"]
    assert calls == [1], "the finished step is not executed again"
    assert any("does not know of it" in (record["reason"] or "") for record in story["audit"])


async def test_an_end_that_cannot_be_written_is_told_and_the_run_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Event] = []
    refusals: list[Exception] = [StoreError("the first"), StoreError("the second")]
    settle = Pump.settle

    def refuse_twice(self: Pump, settlement: Settlement, on_settled: OnSettled) -> None:
        if refusals:
            on_settled(refusals.pop(0))
        else:
            settle(self, settlement, on_settled)

    app = App("t")

    @app.agent
    async def plain(ctx: Context) -> int:
        return ctx.attempt

    monkeypatch.setattr(Pump, "settle", refuse_twice)
    monkeypatch.setattr("pilothouse.testing.Emitter", lambda: Emitter([seen.append]))
    platform = await start(app, is_frozen=False)
    run_id = await platform.submit("plain")
    async with asyncio.timeout(WAIT_SECONDS):
        while (run := await platform.get(run_id))["state"] != "succeeded":  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert run["output"] == 2
    told = [event.reason for event in seen if isinstance(event, RunDropped)]
    assert told == ["its end could not be written: the second"]


async def test_attempts_that_are_known_are_left_alone(start: Start) -> None:
    app, may_end = App("t"), asyncio.Event()

    @app.agent
    async def slow() -> str:
        await may_end.wait()
        return "done"

    platform = await start(app, is_frozen=False)
    ids = [await platform.submit("slow") for _ in range(5)]
    looks = platform._worker._strays
    async with asyncio.timeout(WAIT_SECONDS):
        for _ in range(3):
            seen = looks._looked_at
            while looks._looked_at == seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    may_end.set()
    await platform.run_until_idle()

    stories = [await platform.timeline(id) for id in ids]
    assert [[attempt["state"] for attempt in story["attempts"]] for story in stories] == [["succeeded"]] * 5
