"""Asking models inside a run: answers are kept, forms are held, tools are called, loops are halted."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from pydantic import BaseModel

from pilothouse import App, Context, StepError, SyncContext, Window
from pilothouse.errors import OutputInvalid
from pilothouse.testing import ScriptedModel
from tests.engine.conftest import Start


class Label(BaseModel):
    kind: str
    urgency: int


async def test_an_answer_is_asked_for_once(start: Start) -> None:
    app, model = App("t"), ScriptedModel([{"say": "Hello"}])

    @app.agent
    async def agent(ctx: Context) -> str:
        text = await ctx.llm("greet", "Say hello")
        await ctx.sleep("nap", seconds=1)
        return text

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "Hello"
    assert len(model.asked) == 1


async def test_a_form_is_held_and_repaired(start: Start) -> None:
    app = App("t")
    model = ScriptedModel(
        [
            {"round": 1, "json": {"kind": "refund", "urgency": "very"}},
            {"round": 2, "say": "It is a refund"},
            {"round": 3, "json": {"kind": "refund", "urgency": 3}},
        ]
    )

    @app.agent
    async def agent(ctx: Context) -> Label:
        return await ctx.llm("label", "What is it?", output=Label)

    platform = await start(app, model=model)

    assert await platform.run("agent") == {"kind": "refund", "urgency": 3}
    assert [question.round for question in model.asked] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "said", "wanted"),
    [
        (list[int], {"value": [1, 2]}, [1, 2]),
        (int, {"value": 7}, 7),
        (dict[str, float], {"a": 1.5}, {"a": 1.5}),
        (str | None, {"value": None}, None),
    ],
)
async def test_any_type_can_be_asked_for(start: Start, kind: Any, said: Any, wanted: Any) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Any:
        return await ctx.llm("ask", "?", output=kind)

    platform = await start(app, model=ScriptedModel([{"json": said}]))

    assert await platform.run("agent") == wanted


async def test_a_form_in_text_is_taken_too(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> Label:
        return await ctx.llm("label", "?", output=Label)

    platform = await start(app, model=ScriptedModel([{"say": 'Sure:\n```json\n{"kind": "bug", "urgency": 1}\n```'}]))

    assert await platform.run("agent") == {"kind": "bug", "urgency": 1}


async def test_an_answer_that_never_fits_fails_and_the_next_attempt_asks_on(start: Start) -> None:
    app = App("t")
    model = ScriptedModel([{"fault": "broken_json", "times": 3}, {"json": {"kind": "bug", "urgency": 1}}])
    errors: list[OutputInvalid] = []

    @app.agent
    async def agent(ctx: Context) -> Label:
        try:
            return await ctx.llm("label", "?", output=Label)
        except OutputInvalid as error:
            errors.append(error)
            raise

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=10)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["output"], run["failures"]) == ("succeeded", {"kind": "bug", "urgency": 1}, 1)
    assert "is not JSON" in str(errors[0])
    assert len(model.asked) == 4  # three in the first attempt, one more in the second


async def test_a_form_that_was_given_up_and_gone_past_stays_so(start: Start) -> None:
    app = App("t")
    model = ScriptedModel([{"fault": "broken_json"}])

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            await ctx.llm("label", "?", output=Label, repairs=0)
        except OutputInvalid:
            await ctx.sleep("nap", seconds=1)
            return "gone past"
        return "never"

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "gone past"
    assert len(model.asked) == 1


async def test_a_stream_comes_in_pieces_and_on_replay_in_one(start: Start) -> None:
    app, heard = App("t"), list[list[str]]()

    @app.agent
    async def agent(ctx: Context) -> str:
        heard.append([piece async for piece in ctx.llm_stream("tell", "Tell me a story")])
        await ctx.sleep("nap", seconds=1)
        return "".join(heard[-1])

    model = ScriptedModel([{"say": "Once upon a time there was a ship."}])
    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "Once upon a time there was a ship."
    assert len(heard[0]) > 1
    assert heard[1] == ["Once upon a time there was a ship."]
    assert len(model.asked) == 1


async def test_a_plain_handler_asks_and_streams_too(start: Start) -> None:
    app = App("t")

    @app.agent
    def agent(ctx: SyncContext) -> list[str]:
        return [ctx.llm("one", "?"), "".join(ctx.llm_stream("two", "?"))]

    platform = await start(app, model=ScriptedModel([{"say": "a long enough answer"}]))

    assert await platform.run("agent") == ["a long enough answer"] * 2


async def test_a_model_calls_tools_until_it_answers(start: Start) -> None:
    app, called = App("t"), list[int]()
    model = ScriptedModel(
        [
            {"when": {"after": "nothing"}, "call": {"tool": "lookup", "arguments": {"order": 17}}},
            {"when": {"after": "lookup", "matches": "(?P<state>sent|lost)"}, "say": "It was {state}."},
        ]
    )

    @app.tool(effect="read")
    async def lookup(order: int) -> dict[str, Any]:
        called.append(order)
        return {"state": "sent"}

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("answer", "Where is order 17?", tools=[lookup])

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == "It was sent."
    assert called == [17]
    assert [call["key"] for call in found["tool_calls"]] == ["answer/1.lookup"]
    assert [(call["called_by"], call["arguments"], call["outcome"]) for call in found["tool_calls"]] == [
        ("model", {"order": 17}, "succeeded")
    ]


async def test_what_a_model_calls_wrongly_it_is_told(start: Start) -> None:
    app = App("t")
    model = ScriptedModel(
        [
            {"round": 1, "call": {"tool": "delete_everything", "arguments": {}}},
            {"round": 2, "call": {"tool": "lookup", "arguments": {"order": "seventeen"}}},
            {"round": 3, "call": {"tool": "lookup", "arguments": {"order": 13}}},
            {"round": 4, "say": "I give up"},
        ]
    )

    @app.tool(effect="read")
    def lookup(order: int) -> str:
        raise LookupError(f"there is no order {order}")

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("answer", "?", tools=["lookup"])

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["output"] == "I give up"
    told = [question.result for question in model.asked[1:]]
    assert "There is no tool 'delete_everything'; the tools are lookup." in told[0]
    assert "the arguments do not fit tool 'lookup': order" in told[1]
    assert "LookupError: there is no order 13" in told[2]
    calls = (await platform.timeline(run_id))["tool_calls"]
    assert [(call["arguments"], call["outcome"]) for call in calls] == [
        ({"order": "seventeen"}, "failed"),
        ({"order": 13}, "failed"),
    ]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"call": {"tool": "look", "arguments": {"at": 1}}}, "the same call 3 times with the same result"),
        ({"matches": "(?P<n>\\d+)$", "call": {"tool": "count", "arguments": {"n": "{n}"}}}, "took 10 rounds"),
    ],
)
async def test_a_model_that_loops_is_halted_with_the_evidence(start: Start, entry: dict[str, Any], reason: str) -> None:
    from pilothouse.control.timeline import why

    app, counted = App("t"), [0]
    model = ScriptedModel([{"when": {"contains": "enough"}, "say": "done"}, entry])

    @app.tool(effect="read")
    def look(at: int) -> str:
        return "enough" if counted[0] else "nothing"

    @app.tool(effect="read")
    def count(n: int) -> str:
        counted[0] += 1
        return "enough" if counted[0] > 10 else f"so far {n + 1}"

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("ask", "count from 1", tools=[look, count])

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    told = await why(platform.db, run_id)
    assert told["state"] == "waiting"
    assert reason in told["reasons"][0]
    signal = told["reasons"][0].split("'")[1]
    assert f"runs signal {run_id} {signal}" in told["next"]
    halts = [step for step in (await platform.timeline(run_id))["steps"] if step["kind"] == "halt"]
    assert halts[0]["result"]["evidence"][-1]["tool"] in ("look", "count")

    counted[0] = 100
    await platform.signal(run_id, signal)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == "done"


async def test_a_person_may_stop_what_was_halted(start: Start) -> None:
    app = App("t")

    @app.tool(effect="read")
    def look() -> str:
        return "nothing"

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("ask", "?", tools=[look], max_tool_calls=1)

    platform = await start(app, model=ScriptedModel([{"call": {"tool": "look"}}]))
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.signal(run_id, "ask.continue", {"stop": "too dear"})
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert run["state"] == "failed"
    assert "max_tool_calls" in run["error"]["message"]
    assert "too dear" in run["error"]["message"]


async def test_a_run_waits_while_no_model_answers_and_spends_no_attempt(start: Start) -> None:
    app = App("t")
    model = ScriptedModel([{"fault": "rate_limited", "retry_after_seconds": 3, "times": 9}, {"say": "Hello"}])

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "Say hello")

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    from pilothouse.control.timeline import why

    found = await platform.timeline(run_id)
    assert (found["run"]["state"], found["run"]["failures"]) == ("waiting", 0)
    assert "429" in (await why(platform.db, run_id))["reasons"][0]
    assert [step["state"] for step in found["steps"]] == ["retryable"]
    assert [(call["outcome"], call["reason"]) for call in found["model_calls"]] == [("failed", "rate_limited")]

    waits = [3] * 8 + [4]  # as long as it was told to, until that was in vain too often
    for seconds in waits:
        await platform.advance(seconds=seconds)
        await platform.run_until_idle()
    found = await platform.timeline(run_id)
    assert (found["run"]["state"], found["run"]["output"], found["run"]["failures"]) == ("succeeded", "Hello", 0)
    assert (found["steps"][0]["tries"], len(found["model_calls"])) == (10, 10)


async def test_answers_that_are_none_fail_the_run_in_the_end(start: Start) -> None:
    app, model = App("t"), ScriptedModel([{"fault": "empty"}])

    @app.agent(max_attempts=3)
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "Say hello")

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    for _ in range(3):
        await platform.run_until_idle()
        await platform.advance(seconds=600)

    found = await platform.timeline(run_id)
    assert (found["run"]["state"], found["run"]["error"]["type"]) == ("failed", "AnswerMalformed")
    assert len(model.asked) == len(found["model_calls"]) == 3  # each may be paid, so it is not asked for for ever


async def test_branches_that_go_on_are_not_cut_off_by_one_that_waits_for_a_model(start: Start) -> None:
    app = App("t")
    model = ScriptedModel(
        [{"when": {"contains": "slow"}, "fault": "rate_limited", "retry_after_seconds": 60, "times": 1}, {"say": "yes"}]
    )

    async def work() -> str:
        await asyncio.sleep(0.05)
        return "worked"

    @app.agent
    async def agent(ctx: Context) -> list[str]:
        return list(await asyncio.gather(ctx.llm("slow", "slow"), ctx.step("work", work)))

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    steps = (await platform.timeline(run_id))["steps"]
    assert {step["key"]: step["state"] for step in steps} == {"slow": "retryable", "work": "succeeded"}

    await platform.advance(seconds=61)
    await platform.run_until_idle()
    assert (await platform.get(run_id))["output"] == ["yes", "worked"]


async def test_a_short_wait_is_sat_out(start: Start) -> None:
    app = App("t")
    model = ScriptedModel([{"fault": "server_error", "times": 2}, {"say": "Hello"}])

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "Say hello")

    platform = await start(app, model=model, is_frozen=False)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert (found["run"]["output"], len(found["attempts"])) == ("Hello", 1)
    assert [call["outcome"] for call in found["model_calls"]] == ["failed", "failed", "answered"]


@pytest.mark.parametrize("fault", ["unauthorized", "not_found", "rejected"])
async def test_what_somebody_must_change_fails_the_run_at_once(start: Start, fault: str) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "Say hello")

    platform = await start(app, model=ScriptedModel([{"fault": fault}]))
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"], run["error"]["type"]) == ("failed", 1, "ModelRefused")
    assert run["error"]["step"] == "greet"
    calls = (await platform.timeline(run_id))["model_calls"]
    assert [call["outcome"] for call in calls] == ["failed"]


async def test_a_failed_question_can_be_gone_past(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        try:
            return await ctx.llm("greet", "?")
        except StepError as error:
            return error.error_type

    platform = await start(app, model=ScriptedModel([{"fault": "rejected"}]))

    assert await platform.run("agent") == "ModelRefused"


async def test_no_route_says_what_to_add(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "?")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    message = (await platform.get(run_id))["error"]["message"]
    assert "[routes.default]" in message
    assert "PILOTHOUSE_OFFLINE_MODEL" in message


async def test_a_changed_question_is_a_named_divergence(start: Start) -> None:
    app, prompts = App("t"), iter(["first", "second"])

    @app.agent
    async def agent(ctx: Context) -> str:
        text = await ctx.llm("greet", next(prompts))
        await ctx.sleep("nap", seconds=1)
        return text

    platform = await start(app, model=ScriptedModel([{"say": "Hello"}]))
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    assert (await platform.get(run_id))["error"]["type"] == "DivergenceError"


@pytest.mark.parametrize(("retain", "left_out", "most_seen"), [((), [0], 3), (("look",), [], 6)])
async def test_the_oldest_exchanges_leave_a_rolling_window_unless_they_are_retained(
    start: Start, retain: tuple[str, ...], left_out: list[int], most_seen: int
) -> None:
    app, seen = App("t"), list[int]()
    model = ScriptedModel([{"round": 6, "say": "done"}, {"call": {"tool": "look", "arguments": {"at": 1}}}])

    @app.tool(effect="read")
    def look(at: int) -> int:
        seen.append(at)
        return len(seen)

    @app.agent(window=Window(steps=2, retain=retain))
    async def agent(ctx: Context) -> str:
        return await ctx.llm("ask", "?", tools=[look], max_rounds=8)

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()

    steps = {step["key"]: step for step in (await platform.timeline(run_id))["steps"]}
    noted = steps.get("ask.4.context", {}).get("result")
    assert noted == ({"left_out": left_out, "of": 3, "summary": None} if left_out else None)
    assert max(question.round for question in model.asked) == most_seen  # the model sees one answer more than are kept


@pytest.mark.parametrize("streams", [False, True])
async def test_what_leaves_is_summed_up_once(start: Start, streams: bool) -> None:
    app = App("t")
    model = ScriptedModel([{"when": {"contains": "Sum up"}, "say": "They talked about ships."}, {"say": "Ships."}])
    said: list[Any] = [{"role": "user", "content": "ship 0"}]
    for number in range(1, 6):
        said += [{"role": "assistant", "content": f"aye {number}"}, {"role": "user", "content": f"ship {number}"}]

    @app.agent(window=Window(steps=1, summarise="offline:stand-in"))
    async def agent(ctx: Context) -> str:
        if streams:
            answer = "".join([piece async for piece in ctx.llm_stream("ask", messages=said)])
        else:
            answer = await ctx.llm("ask", messages=said)
        await ctx.sleep("nap", seconds=1)
        return answer

    platform = await start(app, model=model)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    await platform.advance(seconds=2)
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    steps = {step["key"]: step for step in found["steps"]}
    summed_up = model.asked[0].text
    assert found["run"]["output"] == "Ships."
    assert steps["ask.context"]["result"] == {"left_out": [0, 1, 2, 3], "of": 5, "summary": "They talked about ships."}
    assert ("aye 1" in summed_up, "aye 5" in summed_up) == (True, False)
    assert [question.round for question in model.asked] == [1, 2]


async def test_memory_outlives_a_run(start: Start) -> None:
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> int:
        count = (await ctx.recall("count") or 0) + 1
        await ctx.remember("count", count)
        return int(count)

    platform = await start(app)

    assert [await platform.run("agent") for _ in range(3)] == [1, 2, 3]
    assert await platform.run("agent", tenant="acme") == 1


async def test_without_its_packages_a_question_fails_at_once_and_says_what_to_install(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    app = App("t")

    @app.agent
    async def agent(ctx: Context) -> str:
        return await ctx.llm("greet", "Say hello")

    platform = await start(app)
    run_id = await platform.submit("agent")
    await platform.run_until_idle()
    run = await platform.get(run_id)

    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert 'pip install "pilothouse[llm]"' in run["error"]["message"]
