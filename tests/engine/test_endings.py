"""How attempts end: by value, by error, by time, by cancel, and when the handler does not want to."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from pilothouse import App, Cancel, Context, Fatal, Retry, Snooze, SyncContext
from pilothouse.control.views import shown_state
from pilothouse.domain.retries import Backoff
from pilothouse.engine import attempt as attempt_module
from pilothouse.testing import TestPlatform
from tests.engine.conftest import Start
from tests.patience import WAIT_SECONDS


def even(n: int) -> int:
    if n % 2:
        raise ValueError("must be even")
    return n


Even = Annotated[int, AfterValidator(even)]
QUICK = Backoff(first_seconds=0.0)


async def until_state(platform: TestPlatform, run_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_SECONDS):
        while (run := await platform.get(run_id))["state"] != state:  # noqa: ASYNC110 - the database is asked
            await asyncio.sleep(0.002)
    return run


@pytest.mark.parametrize(
    ("value", "state", "failures"),
    [
        (Retry("later", after_seconds=60), "queued", 1),
        (Snooze(60), "queued", 0),
        (Fatal("hopeless"), "failed", 1),
        (Cancel("not needed"), "cancelled", 0),
    ],
)
async def test_a_value_says_how_the_attempt_ends(start: Start, value: object, state: str, failures: int) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Any:
        return value

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["failures"]) == (state, failures)


async def test_an_error_of_a_fatal_type_ends_the_run(start: Start) -> None:
    app = App("t")

    @app.agent(fatal=(KeyError,), backoff=QUICK)
    async def agent(ctx: Context) -> None:
        raise KeyError("x")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"]) == ("failed", 1)


async def test_an_input_that_only_the_handlers_types_refuse_fails_with_its_field(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context, n: Even) -> int:
        return n

    platform = await start(app)
    run_id = await platform.submit("agent", {"n": 3})
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["error"]["type"]) == ("failed", "InvalidInput")
    assert "input.n" in run["error"]["message"]


async def test_an_attempt_that_takes_too_long_is_stopped_and_tried_again(start: Start) -> None:
    app, attempts = App("t"), []

    @app.agent(timeout_seconds=0.05, max_attempts=2, backoff=QUICK)
    async def agent(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await asyncio.Event().wait()

    platform = await start(app)
    run_id = await platform.submit("agent")

    run = await until_state(platform, run_id, "failed")
    assert (run["error"]["type"], attempts) == ("AttemptTimeout", [1, 2])


@pytest.mark.parametrize("exit_with", [SystemExit, KeyboardInterrupt])
async def test_a_handler_that_ends_the_process_ends_its_attempt(start: Start, exit_with: type[BaseException]) -> None:
    app = App("t")

    @app.agent(max_attempts=1)
    async def agent(ctx: Context) -> None:
        if exit_with is SystemExit:
            sys.exit(3)
        raise exit_with

    @app.agent
    async def other(ctx: Context) -> str:
        return "fine"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert "tried to end the process" in (await platform.get(run_id))["error"]["message"]
    assert await platform.run("other") == "fine"


async def test_cancel_reaches_an_await(start: Start) -> None:
    app, unwound = App("t"), []

    @app.agent
    async def agent(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append(True)

    platform = await start(app)
    run_id = await platform.submit("agent")
    await until_state(platform, run_id, "running")

    await platform.cancel(run_id)

    await until_state(platform, run_id, "cancelled")
    assert unwound == [True]


async def test_cancel_reaches_a_plain_handler_at_its_next_step_and_shows_until_then(start: Start) -> None:
    app, go, after = App("t"), threading.Event(), []

    @app.agent
    def agent(ctx: SyncContext) -> None:
        go.wait(WAIT_SECONDS)
        ctx.step("next", len, "a")
        after.append("not reached")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await until_state(platform, run_id, "running")

    await platform.cancel(run_id)
    shown = shown_state({"state": "running", "cancel_requested_at": 1})
    assert (await platform.get(run_id))["state"] == shown == "cancelling"
    go.set()

    await until_state(platform, run_id, "cancelled")
    assert after == []


async def test_cancel_takes_children_along(start: Start) -> None:
    app = App("t")

    @app.agent
    async def child(ctx: Context) -> None:
        await asyncio.Event().wait()

    @app.agent
    async def agent(ctx: Context) -> None:
        await (await ctx.start("child")).result()

    platform = await start(app)
    run_id = await platform.submit("agent")
    await until_state(platform, run_id, "waiting")
    (child_run,) = (await platform.timeline(run_id))["children"]
    await until_state(platform, child_run["id"], "running")

    await platform.cancel(run_id)

    await until_state(platform, run_id, "cancelled")
    await until_state(platform, child_run["id"], "cancelled")


async def test_a_handler_that_swallows_every_exception_is_ended_without_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "ABANDON_SECONDS", 0.05)
    app, over = App("t"), threading.Event()

    @app.agent
    async def stubborn(ctx: Context) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                await ctx.step(f"step-{number}", asyncio.sleep, 0.001)
            except BaseException:  # noqa: BLE001 - what this test is about
                continue

    @app.agent
    async def other(ctx: Context) -> str:
        return "fine"

    platform = await start(app)
    run_id = await platform.submit("stubborn")
    await until_state(platform, run_id, "running")
    await platform.cancel(run_id)

    await until_state(platform, run_id, "cancelled")
    assert await platform.run("other") == "fine"
    over.set()


async def test_suspend_cannot_be_swallowed_by_a_plain_handler(start: Start) -> None:
    app = App("t")

    @app.agent
    def agent(ctx: SyncContext) -> str:
        try:
            ctx.sleep("nap", seconds=5)
        except Exception:  # noqa: BLE001 - what this test is about
            return "swallowed"
        return "slept"

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=6)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "slept"


async def test_the_lease_is_renewed_while_a_handler_blocks_the_loop(start: Start) -> None:
    app = App("t")

    @app.agent
    async def blocking(ctx: Context) -> list[int]:
        before = renewed_at(ctx)
        deadline = time.monotonic() + WAIT_SECONDS
        while renewed_at(ctx) == before and time.monotonic() < deadline:
            time.sleep(0.005)  # noqa: ASYNC251 - what this test is about
        return [before, renewed_at(ctx)]

    platform = await start(app, is_frozen=False)

    def renewed_at(ctx: Context) -> int:
        row = platform.db.read_blocking(lambda tx: tx.fetch_all("list_workers", limit=1))[0]
        return int(row["renewed_at"])

    before, after = await platform.run("blocking")

    assert after > before


async def test_a_crashed_worker_loses_its_attempts_and_another_finishes_them(start: Start) -> None:
    app, calls = App("t"), list[str]()
    block = asyncio.Event()

    def note(name: str) -> None:
        calls.append(name)

    @app.agent
    async def agent(ctx: Context) -> str:
        await ctx.step("a", note, "a")
        if ctx.attempt == 1:
            await block.wait()
        await ctx.step("b", note, "b")
        return "done"

    platform = await start(app)
    run_id = await platform.submit("agent")
    async with asyncio.timeout(WAIT_SECONDS):
        while not (await platform.timeline(run_id))["steps"]:  # noqa: ASYNC110 - the database is asked
            await asyncio.sleep(0.002)

    await platform.crash_worker()
    await platform.run_until_idle()

    timeline = await platform.timeline(run_id)
    assert timeline["run"]["output"] == "done"
    assert [attempt["state"] for attempt in timeline["attempts"]] == ["lost", "succeeded"]
    assert calls == ["a", "b"]
