"""Kill switches inside of runs: nothing starts while a switch stops it, nothing fails for it, and all goes on after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pilothouse import App, Context, RetryPolicy
from pilothouse.control import switches
from pilothouse.control.switches import TripOrder
from pilothouse.control.timeline import why
from pilothouse.domain.retries import Backoff
from pilothouse.domain.switches import SwitchMode
from pilothouse.engine.intents import Intents
from pilothouse.engine.sync import SyncContext
from pilothouse.errors import StoreUnavailable
from pilothouse.llm.script import Question, Reply
from pilothouse.store.database import T, Work
from pilothouse.testing import ScriptedModel, TestPlatform
from tests.engine.conftest import Start
from tests.engine.isolated_agents import app as isolated_app
from tests.patience import WAIT_SECONDS

LONG_ENOUGH_SECONDS = 0.15


async def trip(platform: TestPlatform, scope: str, mode: str = "hold") -> None:
    """Returns once the worker acts by it."""
    order = TripOrder(scope, SwitchMode(mode), "a test")
    row = await switches.trip_switch(platform.db, order, principal="test")
    proof = await switches.prove_stop(platform.db, row, deadline_seconds=WAIT_SECONDS)
    assert proof.silent == []


async def reset(platform: TestPlatform, scope: str) -> None:
    await switches.reset_switch(platform.db, scope, principal="test")


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := await look()):  # noqa: ASYNC110 - the run is looked at
            await asyncio.sleep(0.005)
    return found


async def until_state(platform: TestPlatform, run_id: str, *states: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        run = await platform.get(run_id)
        return run if run["state"] in states else None

    found: dict[str, Any] = await until(look)
    return found


async def ended(platform: TestPlatform, run_id: str) -> Any:
    run = await until_state(platform, run_id, "succeeded", "failed", "cancelled")
    assert run["state"] == "succeeded", run["error"]
    assert (run["failures"], run["losses"]) == (0, 0)
    return run["output"]


class Desk:
    """An App whose runs wait between two calls until the test lets them go on, and what its tools were called with."""

    def __init__(self, effect: str = "write") -> None:
        self.app = App("desk")
        self.sent: list[str] = []
        self.at_gate = asyncio.Event()
        self.gate = asyncio.Event()

        @self.app.tool(effect=effect)
        async def send(to: str) -> str:
            self.sent.append(to)
            return f"sent to {to}"

        @self.app.tool(effect="read")
        async def look(at: str) -> str:
            self.sent.append(f"look {at}")
            return at

        @self.app.agent(max_attempts=1)
        async def clerk(ctx: Context, then: str = "send") -> list[str]:
            first = await ctx.tool("send", to="ada")
            await ctx.step("gate", self.pass_gate)
            tool, argument = ("send", {"to": "bob"}) if then == "send" else ("look", {"at": "bob"})
            return [first, await ctx.tool(tool, **argument)]

    async def pass_gate(self) -> None:
        self.at_gate.set()
        await self.gate.wait()

    async def begin(self, platform: TestPlatform, **input: Any) -> str:
        """A run that has sent one mail and is at the gate."""
        run_id = await platform.submit("clerk", input)
        await self.at_gate.wait()
        return run_id


@pytest.mark.parametrize("scope", ["global", "tenant:default", "agent:clerk", "lane:normal", "tool:send"])
async def test_a_held_run_sleeps_before_its_next_call_and_goes_on_after_the_reset(start: Start, scope: str) -> None:
    desk = Desk()
    platform = await start(desk.app)
    run_id = await desk.begin(platform)
    await trip(platform, scope)

    desk.gate.set()
    run = await until_state(platform, run_id, "waiting")

    assert run["available_at"] is None
    assert desk.sent == ["ada"]
    story = await platform.timeline(run_id)
    assert [(wait["kind"], wait["name"]) for wait in story["waits"]] == [("switch", scope)]
    assert story["audit"][-1]["reason"] == f"held by switch {scope} (hold), tripped by test: a test"
    told = await why(platform.db, run_id)
    assert told["next"] == f"once it may go on: `pilothouse switch reset {scope}`"
    await reset(platform, scope)
    assert await ended(platform, run_id) == ["sent to ada", "sent to bob"]
    assert desk.sent == ["ada", "bob"]


async def test_a_switch_of_a_version_holds_the_code_that_has_it(start: Start) -> None:
    desk = Desk()
    platform = await start(desk.app)
    scope = f"version:{desk.app.agents['clerk'].version.fingerprint}"
    run_id = await desk.begin(platform)
    await trip(platform, scope)

    desk.gate.set()

    await until_state(platform, run_id, "waiting")
    await reset(platform, scope)
    assert len(await ended(platform, run_id)) == 2


async def test_what_runs_finishes_while_it_drains_and_nothing_else_begins(start: Start) -> None:
    desk = Desk()
    platform = await start(desk.app)
    run_id = await desk.begin(platform)
    await trip(platform, "agent:clerk", "drain")
    later = await platform.submit("clerk")

    desk.gate.set()

    assert await ended(platform, run_id) == ["sent to ada", "sent to bob"]
    assert (await platform.get(later))["state"] == "queued"
    await reset(platform, "agent:clerk")
    await ended(platform, later)


async def test_what_aborts_is_given_back_at_once_and_succeeds_after_the_reset(start: Start) -> None:
    desk = Desk()
    platform = await start(desk.app)
    run_id = await desk.begin(platform)

    await trip(platform, "agent:clerk", "abort")

    run = await until_state(platform, run_id, "queued")
    assert (run["attempt"], run["failures"], run["losses"]) == (1, 0, 0)
    story = await platform.timeline(run_id)
    assert [attempt["state"] for attempt in story["attempts"]] == ["suspended"]
    assert "given back for switch agent:clerk (abort)" in story["audit"][-1]["reason"]
    desk.gate.set()
    await reset(platform, "agent:clerk")
    assert await ended(platform, run_id) == ["sent to ada", "sent to bob"]
    assert desk.sent == ["ada", "bob"]


async def test_a_switch_of_a_tool_lets_other_tools_go_on(start: Start) -> None:
    desk = Desk()
    platform = await start(desk.app)
    run_id = await desk.begin(platform, then="look")
    await trip(platform, "tool:send", "abort")

    desk.gate.set()

    assert await ended(platform, run_id) == ["sent to ada", "bob"]


async def test_a_run_with_nothing_to_call_runs_to_its_end(start: Start) -> None:
    app, at_gate, gate = App("t"), asyncio.Event(), asyncio.Event()

    @app.agent
    async def plain(ctx: Context) -> str:
        at_gate.set()
        await gate.wait()
        return await ctx.step("plain code", str.upper, "done")

    platform = await start(app)
    run_id = await platform.submit("plain")
    await at_gate.wait()
    await trip(platform, "global")
    gate.set()

    assert await ended(platform, run_id) == "DONE"


async def test_branches_that_are_under_way_finish_before_the_run_sleeps(start: Start) -> None:
    app, begun, gate, done = App("t"), asyncio.Event(), asyncio.Event(), list[str]()

    @app.tool(effect="write")
    async def slow() -> str:
        begun.set()
        await gate.wait()
        done.append("slow")
        return "slow"

    @app.tool(effect="write")
    async def quick() -> str:
        done.append("quick")
        return "quick"

    @app.agent
    async def both(ctx: Context) -> list[str]:
        async def second() -> str:
            await begun.wait()
            await tripped.wait()
            return str(await ctx.tool(quick))

        return list(await asyncio.gather(ctx.tool(slow), second()))

    tripped = asyncio.Event()
    platform = await start(app)
    run_id = await platform.submit("both")
    await begun.wait()
    await trip(platform, "global")
    tripped.set()
    await asyncio.sleep(LONG_ENOUGH_SECONDS)
    assert (await platform.get(run_id))["state"] == "running"
    gate.set()

    await until_state(platform, run_id, "waiting")
    assert done == ["slow"]
    await reset(platform, "global")
    assert await ended(platform, run_id) == ["slow", "quick"]
    assert done == ["slow", "quick"]


async def test_a_call_inside_a_step_is_held_without_failing_it(start: Start) -> None:
    app, begun, gate, sent = App("t"), asyncio.Event(), asyncio.Event(), list[str]()

    @app.tool(effect="write")
    async def send(to: str) -> str:
        sent.append(to)
        return to

    @app.agent(max_attempts=1)
    async def nested(ctx: Context) -> str:
        async def work() -> str:
            await ctx.tool(send, to="first")
            begun.set()
            await gate.wait()
            return str(await ctx.tool(send, to="second"))

        return await ctx.step("outer", work)

    platform = await start(app)
    run_id = await platform.submit("nested")
    await begun.wait()
    await trip(platform, "tool:send")
    gate.set()

    await until_state(platform, run_id, "waiting")
    assert sent == ["first"]
    await reset(platform, "tool:send")
    assert await ended(platform, run_id) == "second"
    assert sent == ["first", "second"]


async def test_plain_handlers_and_plain_tools_are_held_too(start: Start) -> None:
    app, begun, gate, sent = App("t"), threading.Event(), threading.Event(), list[str]()

    @app.tool(effect="write")
    def send(to: str) -> str:
        sent.append(to)
        return to

    @app.agent(max_attempts=1)
    def clerk(ctx: SyncContext) -> str:
        ctx.tool(send, to="first")
        begun.set()
        assert gate.wait(WAIT_SECONDS)
        return str(ctx.tool(send, to="second"))

    platform = await start(app)
    run_id = await platform.submit("clerk")
    assert await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    await trip(platform, "global")
    gate.set()

    await until_state(platform, run_id, "waiting")
    assert sent == ["first"]
    await reset(platform, "global")
    assert await ended(platform, run_id) == "second"
    assert sent == ["first", "second"]


# --- between the intent and the call -----------------------------------------------------------


@pytest.fixture
def trips_after_the_intent(monkeypatch: pytest.MonkeyPatch) -> Callable[[TestPlatform, str], list[str]]:
    """Trips a switch in the moment after the first intent was written, once."""

    def prepare(platform: TestPlatform, mode: str) -> list[str]:
        write, tripped = Intents.write, list[str]()

        async def write_and_trip(self: Intents) -> Any:
            found = await write(self)
            if not tripped:
                tripped.append(mode)
                await trip(platform, "global", mode)
            return found

        monkeypatch.setattr(Intents, "write", write_and_trip)
        return tripped

    return prepare


@pytest.mark.parametrize(("mode", "state"), [("hold", "waiting"), ("abort", "queued")])
async def test_an_intent_whose_call_was_stopped_in_the_last_moment_raises_no_question(
    start: Start, trips_after_the_intent: Callable[[TestPlatform, str], list[str]], mode: str, state: str
) -> None:
    app, sent = App("t"), list[str]()

    @app.tool(effect="irreversible")
    async def send(to: str) -> str:
        sent.append(to)
        return to

    @app.agent(max_attempts=1)
    async def clerk(ctx: Context) -> str:
        return str(await ctx.tool(send, to="ada"))

    platform = await start(app)
    tripped = trips_after_the_intent(platform, mode)
    run_id = await platform.submit("clerk")

    await until(lambda: _true(bool(tripped)))
    await until_state(platform, run_id, state)
    assert sent == []
    await reset(platform, "global")

    assert await ended(platform, run_id) == "ada"
    assert sent == ["ada"]
    keys = [step["key"] for step in (await platform.timeline(run_id))["steps"]]
    assert sorted(keys) == ["send", "send.intent", "send.intent-2", "send.withdrawn"]


async def test_a_crash_after_a_withdrawn_intent_is_asked_about_as_ever(
    start: Start, trips_after_the_intent: Callable[[TestPlatform, str], list[str]]
) -> None:
    """The second intent has a call that may have happened."""
    app, sent, gate = App("t"), list[str](), asyncio.Event()

    @app.tool(effect="write")
    async def send(to: str) -> str:
        sent.append(to)
        await gate.wait()
        return to

    @app.agent
    async def clerk(ctx: Context) -> str:
        return str(await ctx.tool(send, to="ada"))

    platform = await start(app)
    trips_after_the_intent(platform, "hold")
    run_id = await platform.submit("clerk")
    await until_state(platform, run_id, "waiting")
    await reset(platform, "global")
    await until(lambda: _true(bool(sent)))
    await platform.crash_worker()

    await until_state(platform, run_id, "waiting")
    told = await why(platform.db, run_id)
    assert "did the call of tool 'send' in step 'send' happen?" in told["reasons"][0]
    assert "send.happened-2" in told["reasons"][0]
    await platform.signal(run_id, "send.happened-2", {"happened": True, "result": "ada"})
    run = await until_state(platform, run_id, "succeeded")
    assert (run["output"], sent) == ("ada", ["ada"])


async def _true(value: bool) -> bool:
    return value


async def test_a_switch_between_two_tries_of_a_call_is_heeded(start: Start) -> None:
    app, tries, tripped = App("t"), list[int](), asyncio.Event()
    at_once = RetryPolicy(attempts=5, backoff=Backoff(first_seconds=0.05, limit_seconds=0.05))

    @app.tool(effect="write", retry=at_once)
    async def send() -> int:
        tries.append(len(tries) + 1)
        if len(tries) == 1:
            await trip(platform, "tool:send")
            tripped.set()
            raise ValueError("not yet")
        return len(tries)

    @app.agent(max_attempts=1)
    async def clerk(ctx: Context) -> int:
        return int(await ctx.tool(send))

    platform = await start(app)
    run_id = await platform.submit("clerk")
    await tripped.wait()

    await until_state(platform, run_id, "waiting")
    assert tries == [1]
    await reset(platform, "tool:send")
    assert await ended(platform, run_id) == 2


# --- models ------------------------------------------------------------------------------------


async def test_no_question_goes_to_a_model_while_a_switch_stops_it(start: Start) -> None:
    app, at_gate, gate = App("t"), asyncio.Event(), asyncio.Event()

    @app.agent(max_attempts=1)
    async def asks(ctx: Context) -> str:
        await ctx.llm("first", "one")
        at_gate.set()
        await gate.wait()
        pieces = [piece async for piece in ctx.llm_stream("second", "two")]
        return "".join(pieces)

    model = ScriptedModel([{"say": "an answer"}])
    platform = await start(app, model=model)
    run_id = await platform.submit("asks")
    await at_gate.wait()
    await trip(platform, "agent:asks")
    gate.set()

    await until_state(platform, run_id, "waiting")
    assert len(model.asked) == 1
    await reset(platform, "agent:asks")
    assert await ended(platform, run_id) == "an answer"
    assert len(model.asked) == 2


async def test_the_next_model_of_a_route_is_not_asked_either(start: Start) -> None:
    """The switch is tripped while the first one fails."""
    app, asked = App("t"), list[str]()

    @app.agent(max_attempts=1)
    async def asks(ctx: Context) -> str:
        return await ctx.llm("question", "which?", model="two")

    script = ScriptedModel([{"fault": "server_error", "times": 1}, {"say": "an answer"}])

    def answer(question: Question) -> Reply:
        asked.append(question.text)
        if len(asked) == 1:
            trip_in_another_thread(platform)
        return script(question)

    platform = await start(app, model=answer, routes={"two": {"models": ["offline:stand-in", "offline:stand-in"]}})
    run_id = await platform.submit("asks")

    await until_state(platform, run_id, "waiting")
    assert len(asked) == 1
    await reset(platform, "global")
    await ended(platform, run_id)


def trip_in_another_thread(platform: TestPlatform) -> None:
    """The model of a test blocks the loop: by its end the switch is tripped, and the worker has not looked."""

    def work() -> None:
        asyncio.run(switches.trip_switch(platform.db, TripOrder("global"), principal="test"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_SECONDS)


# --- the worker --------------------------------------------------------------------------------


async def test_while_the_database_is_away_no_effect_starts(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(effect="read")
    platform = await start(desk.app, is_frozen=False)
    run_id = await desk.begin(platform)
    read, is_away = platform.db.read, [True]

    async def away(work: Work[T]) -> T:
        if is_away[0]:
            raise StoreUnavailable("the database is away")
        return await read(work)

    monkeypatch.setattr(platform.db, "read", away)
    await asyncio.sleep(0.4)
    desk.gate.set()
    await asyncio.sleep(0.4)
    assert desk.sent == ["ada"]

    is_away[0] = False
    assert await ended(platform, run_id) == ["sent to ada", "sent to bob"]


async def test_held_work_does_not_make_a_worker_spin(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    platform = await start(desk.app)
    await trip(platform, "tenant:default")
    ids = [await platform.submit("clerk") for _ in range(5)]
    await asyncio.sleep(LONG_ENOUGH_SECONDS)
    transact, count = platform.db.transaction, [0]

    async def counted(work: Work[T], *, is_patient: bool = False) -> T:
        count[0] += is_patient
        return await transact(work, is_patient=is_patient)

    monkeypatch.setattr(platform.db, "transaction", counted)
    await asyncio.sleep(2 * LONG_ENOUGH_SECONDS)
    assert count[0] == 0
    desk.gate.set()
    await reset(platform, "tenant:default")
    for run_id in ids:
        await ended(platform, run_id)


async def test_agents_in_processes_of_their_own_are_held_and_given_back(start: Start) -> None:
    platform = await start(isolated_app, is_frozen=False, model=ScriptedModel([{"say": "an answer"}]))
    await trip(platform, "tool:shout")
    held = await platform.submit("calls", {"words": ["a", "b"]})
    await until_state(platform, held, "waiting")
    told = await why(platform.db, held)
    assert "it is held by switch tool:shout (hold)" in told["reasons"][0]
    await reset(platform, "tool:shout")
    assert await ended(platform, held) == ["A", "B", "an answer"]

    stuck = await platform.submit("waits_for_ever")
    await until_state(platform, stuck, "running")
    await trip(platform, "agent:waits_for_ever", "abort")
    run = await until_state(platform, stuck, "queued")
    assert run["failures"] == 0
    await platform.cancel(stuck)
