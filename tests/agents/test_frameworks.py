"""Agents of frameworks beyond what the conformance suite shows: forms, retries, hand-offs, interrupts, programs."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from agents import Agent as OpenAIAgent
from agents import OpenAIChatCompletionsModel, function_tool
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import ModelRetry, RunContext
from pydantic_ai.models.test import TestModel
from typing_extensions import TypedDict

from pilothouse import App
from pilothouse.agents.langgraph import ChatModel
from pilothouse.domain.policies import Facts, Proposal, Verdict
from pilothouse.errors import ConfigError
from pilothouse.testing import ScriptedModel
from tests.engine.conftest import Start, start

__all__ = ["start"]


class Reply(BaseModel):
    text: str


class Answers(TypedDict):
    said: Annotated[list[str], operator.add]


async def test_a_pydantic_agent_keeps_its_form_its_deps_and_its_retries(start: Start) -> None:
    agent = PydanticAgent("openai:gpt-5-mini", name="support", output_type=Reply, deps_type=str, defer_model_check=True)
    asked: list[int] = []

    @agent.tool
    def lookup(ctx: RunContext[str], order: int) -> str:
        asked.append(order)
        if order == 1:
            raise ModelRetry("no such order, try 17")
        return f"{ctx.deps}: order {order} was sent"

    app = App("t")
    app.add_agent(agent, deps=lambda ctx: ctx.input["context"]["greeting"], model="default")
    model = ScriptedModel(
        [
            {"round": 1, "call": {"tool": "lookup", "arguments": {"order": 1}}},
            {"round": 2, "call": {"tool": "lookup", "arguments": {"order": 17}}},
            {"round": 3, "json": {"text": "It was sent."}},
        ]
    )
    platform = await start(app, model=model)

    assert await platform.run("support", {"prompt": "?", "context": {"greeting": "Hi"}}) == {"text": "It was sent."}
    assert asked == [1, 17]
    assert "no such order" in model.asked[1].result
    assert "Hi: order 17" in model.asked[2].result


async def test_an_agents_own_model_is_asked_where_no_route_stands_in(start: Start) -> None:
    app = App("t")
    app.add_agent(PydanticAgent(TestModel(custom_output_text="my own"), name="own"))
    platform = await start(app)
    run_id = await platform.submit("own", {"prompt": "?"})
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == "my own"
    assert [(call["model"], call["cost_microusd"]) for call in found["model_calls"]] == [("test:test", 0)]


async def test_an_agent_that_gives_up_does_not_try_in_vain(start: Start) -> None:
    app = App("t")
    agent = PydanticAgent("openai:gpt-5-mini", name="support", output_type=Reply, defer_model_check=True)
    app.add_agent(agent, model="default")
    model = ScriptedModel([{"fault": "broken_json"}])
    platform = await start(app, model=model)
    run_id = await platform.submit("support", {"prompt": "?"})
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert "agent 'support' gave up" in run["error"]["message"]


async def test_openai_agents_hand_off_and_call_tools_as_steps(start: Start) -> None:
    called: list[int] = []

    @function_tool
    def lookup(order: int) -> str:
        called.append(order)
        return f"order {order} was sent"

    billing = OpenAIAgent(name="billing", instructions="You know orders", tools=[lookup], model="gpt-5-mini")
    app = App("t")
    front = OpenAIAgent(name="front", instructions="You hand off", handoffs=[billing], output_type=str)
    app.add_agent(front, effects={"lookup": "read"})
    model = ScriptedModel(
        [
            {"when": {"system": "hand off"}, "call": {"tool": "transfer_to_billing", "arguments": {}}},
            {"when": {"after": "transfer_to_billing"}, "call": {"tool": "lookup", "arguments": {"order": 17}}},
            {"when": {"after": "lookup"}, "say": "It was sent."},
        ]
    )
    platform = await start(app, model=model)
    run_id = await platform.submit("front", {"prompt": "Where is 17?"})
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert (found["run"]["output"], called) == ("It was sent.", [17])
    assert sorted(step["kind"] for step in found["steps"]) == ["model", "model", "model", "tool"]


async def test_an_openai_agent_that_is_a_tool_is_asked_once(start: Start) -> None:
    inner = OpenAIAgent(name="inner", instructions="You are inner")
    app = App("t")
    app.add_agent(OpenAIAgent(name="outer", tools=[inner.as_tool("ask_inner", "Asks")]))
    model = ScriptedModel(
        [
            {"when": {"system": "You are inner"}, "say": "It was sent."},
            {"when": {"after": "nothing"}, "call": {"tool": "ask_inner", "arguments": {"input": "?"}}},
            {"fault": "rate_limited", "retry_after_seconds": 60, "times": 1},
            {"say": "done"},
        ]
    )
    platform = await start(app, model=model)
    run_id = await platform.submit("outer", {"prompt": "?"})
    await platform.run_until_idle()
    await platform.advance(seconds=61)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["output"], run["attempt"]) == ("succeeded", "done", 2), run["error"]
    assert len(model.asked) == 4


def paying_pydantic_agent(paid: list[int]) -> Any:
    agent = PydanticAgent("openai:gpt-5-mini", name="payer", defer_model_check=True)

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int) -> str:
        paid.append(amount)
        return "paid"

    return agent


def paying_openai_agent(paid: list[int]) -> Any:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        paid.append(amount)
        return "paid"

    return OpenAIAgent(name="payer", tools=[pay])


@pytest.mark.parametrize("make", [paying_pydantic_agent, paying_openai_agent])
async def test_a_tool_that_wants_an_approval_waits_for_a_person(start: Start, make: Callable[[list[int]], Any]) -> None:
    app, paid = App("t"), list[int]()
    app.add_agent(make(paid), model="default")
    call = {"tool": "pay", "arguments": {"amount": 3}}
    script: list[dict[str, Any]] = [{"when": {"after": "nothing"}, "call": call}, {"say": "done"}]
    platform = await start(app, model=ScriptedModel(script))
    yes, no = [await platform.submit("payer", {"prompt": "?"}) for _ in range(2)]
    await platform.run_until_idle()
    assert paid == []

    for run_id, choice, arguments in ((yes, "approve", {"amount": 2}), (no, "reject", None)):
        (asked,) = await platform.approvals(run_id)
        await platform.decide(asked["id"], choice, arguments=arguments, note="well")  # type: ignore[arg-type]
    await platform.run_until_idle()

    assert [(await platform.get(run_id))["output"] for run_id in (yes, no)] == ["done", "done"]
    assert paid == [2]


def sending_pydantic_agent(sent: list[float]) -> tuple[Any, dict[str, Any]]:
    agent = PydanticAgent("openai:gpt-5-mini", name="payer", defer_model_check=True)

    @agent.tool_plain(metadata=TRANSFER | {"cost_center": "sales"})
    def transfer(usd: float, sure: float) -> str:
        sent.append(usd)
        return "sent"

    return agent, {}


def sending_openai_agent(sent: list[float]) -> tuple[Any, dict[str, Any]]:
    @function_tool
    def transfer(usd: float, sure: float) -> str:
        sent.append(usd)
        return "sent"

    return OpenAIAgent(name="payer", tools=[transfer]), {"transfer": TRANSFER}


def sending_graph(sent: list[float]) -> tuple[Any, dict[str, Any]]:
    @langchain_tool
    def transfer(usd: float, sure: float) -> str:
        """Sends money."""
        sent.append(usd)
        return "sent"

    transfer.metadata = TRANSFER
    chat = ChatModel().bind_tools([transfer])

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode([transfer]))
    graph.add_edge(START, "think").add_conditional_edges("think", tools_condition).add_edge("tools", "think")
    return graph, {}


TRANSFER = {
    "effect": "irreversible",
    "platform": "bank",
    "amount": "usd",
    "confidence": "sure",
    "risk": 1,
    "billing": "recurring",
    "data_class": "financial",
    "cost_usd": 0.02,
}
MAKERS = [sending_pydantic_agent, sending_openai_agent, sending_graph]


@pytest.mark.parametrize("make", MAKERS)
async def test_policies_see_what_a_tool_of_a_framework_declares(
    start: Start, make: Callable[[list[float]], tuple[Any, dict[str, Any]]]
) -> None:
    app, sent, seen = App("t"), list[float](), list[tuple[Proposal, Facts]]()

    @app.policy
    def limit(proposal: Proposal, facts: Facts) -> Verdict | None:
        seen.append((proposal, facts))
        return Verdict.deny("too much") if proposal.amount_usd > 100 else None

    agent, effects = make(sent)
    app.add_agent(agent, name="payer", effects=effects, model="default")
    calls = [{"tool": "transfer", "arguments": {"usd": usd, "sure": 0.99}} for usd in (500.0, 7.0)]
    model = ScriptedModel([{"round": 1, "call": calls[0]}, {"round": 2, "call": calls[1]}, {"round": 3, "say": "done"}])
    platform = await start(app, model=model)
    said = {"messages": [{"role": "user", "content": "?"}]}
    run_id = await platform.submit("payer", said if isinstance(agent, StateGraph) else {"prompt": "?"})
    await platform.run_until_idle()
    assert "too much" in model.asked[1].result
    (asked,) = await platform.approvals(run_id)
    await platform.decide(asked["id"], "approve")
    await platform.run_until_idle()

    assert ((await platform.get(run_id))["state"], sent) == ("succeeded", [7.0])
    proposal, facts = seen[-1]
    assert (proposal.amount_usd, facts.confidence) == (7, 0.99)
    assert (proposal.platform, proposal.risk, proposal.is_reversible) == ("bank", 1, False)
    assert (proposal.billing, proposal.data_class) == ("recurring", "financial")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"amuont": "usd"}, "tool 'transfer' declares 'amuont', which nothing looks at; did you mean 'amount'"),
        ({"amount": "euros"}, "tool 'transfer': amount names 'euros', which is no argument of it; they are usd, sure"),
        ({"risk": 5}, "tool 'transfer': risk is 5; it is a tier from 0 to 4"),
        ({"cost_usd": "much"}, "tool 'transfer': cost_usd is 'much': Input should be a valid number"),
        (
            {"billing": "yearly"},
            "tool 'transfer': billing is 'yearly': Input should be 'none', 'one_time'",
        ),
    ],
)
def test_what_a_tool_of_a_framework_cannot_declare_is_refused_at_the_start(
    make: Callable[[list[float]], tuple[Any, dict[str, Any]]],
    said: dict[str, Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.agents.test_frameworks.TRANSFER", said)
    agent, effects = make([])

    with pytest.raises(ConfigError, match=re.escape(told)):
        App("t").add_agent(agent, name="payer", effects=effects)


async def test_a_graph_waits_at_an_interrupt_and_goes_on(start: Start) -> None:
    model = ChatModel()
    thought: list[int] = []

    async def think(state: MessagesState) -> Any:
        thought.append(1)
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def ask(state: MessagesState) -> Any:
        return {"messages": [{"role": "user", "content": f"said {interrupt('may I?')}"}]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("ask", ask)
    graph.add_node("again", think)
    graph.add_edge(START, "think")
    graph.add_edge("think", "ask")
    graph.add_edge("ask", "again")
    graph.add_edge("again", END)
    app = App("t")
    app.add_agent(graph, name="graph")
    scripted = ScriptedModel([{"when": {"contains": "said yes"}, "say": "then I do"}, {"say": "may I?"}])
    platform = await start(app, model=scripted)
    run_id = await platform.submit("graph", {"messages": [{"role": "user", "content": "do it"}]})
    await platform.run_until_idle()
    assert (await platform.get(run_id))["state"] == "waiting"

    await platform.signal(run_id, "interrupt-1", "yes")
    await platform.run_until_idle()

    messages = (await platform.get(run_id))["output"]["messages"]
    assert [message["content"] for message in messages] == ["do it", "may I?", "said yes", "then I do"]
    assert len(thought) == 2  # the node before the interrupt was not run again
    assert len(scripted.asked) == 2


async def test_a_graph_hears_each_of_its_questions_answered_for_itself(start: Start) -> None:
    def both(state: Answers) -> Any:
        return {"said": [f"{interrupt('first?')} {interrupt('second?')}"]}

    def other(state: Answers) -> Any:
        return {"said": [interrupt("and you?")]}

    graph = StateGraph(Answers)
    for name, node in (("both", both), ("other", other)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    app = App("t")
    app.add_agent(graph, name="graph")
    platform = await start(app)
    run_id = await platform.submit("graph", {"said": []})
    await platform.run_until_idle()
    for number, word in ((2, "me too"), (1, "one"), (3, "two")):
        await platform.signal(run_id, f"interrupt-{number}", word)
        await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == {"said": ["one two", "me too"]}
    assert [line["message"].rpartition(": ")[2] for line in found["logs"]] == ["first?", "and you?", "second?"]


async def test_a_graph_inside_a_graph_calls_its_tools_as_steps(start: Start) -> None:
    @langchain_tool
    def lookup(order: int) -> str:
        """Looks up an order."""
        return f"order {order} was sent"

    def think(state: MessagesState) -> Any:
        return {"messages": [ChatModel().bind_tools([lookup]).invoke(state["messages"])]}

    async def sum_up(state: MessagesState) -> Any:
        reply = await ChatModel().with_structured_output(Reply).ainvoke("sum it up")
        return {"messages": [{"role": "assistant", "content": reply.text}]}

    inner = StateGraph(MessagesState)
    inner.add_node("think", think)
    inner.add_node("tools", ToolNode([lookup]))
    inner.add_edge(START, "think")
    inner.add_conditional_edges("think", tools_condition)
    inner.add_edge("tools", "think")
    graph = StateGraph(MessagesState)
    graph.add_node("inner", inner.compile())
    graph.add_node("sum_up", sum_up)
    graph.add_edge(START, "inner")
    graph.add_edge("inner", "sum_up")
    graph.add_edge("sum_up", END)
    app = App("t")
    app.add_agent(graph, name="graph")
    model = ScriptedModel(
        [
            {"when": {"contains": "sum it up"}, "json": {"text": "it was sent"}},
            {"when": {"after": "lookup"}, "say": "order 17 was sent"},
            {"call": {"tool": "lookup", "arguments": {"order": 17}}},
        ]
    )
    platform = await start(app, model=model)
    run_id = await platform.submit("graph", {"messages": [{"role": "user", "content": "?"}]})
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"]["messages"][-1]["content"] == "it was sent", found["run"]["error"]
    assert [call["tool"] for call in found["tool_calls"]] == ["lookup"]


def test_a_graph_with_breakpoints_is_refused() -> None:
    graph = StateGraph(Answers)
    graph.add_node("node", lambda _: {"said": []})
    graph.add_edge(START, "node")

    with pytest.raises(ConfigError, match="has breakpoints"):
        App("t").add_agent(graph.compile(interrupt_before=["node"]), name="graph")


PROGRAM = """
import json, sys, openai
given = json.load(sys.stdin)
print("about to ask" + "." * given.get("dots", 0), file=sys.stderr)
answer = openai.OpenAI().chat.completions.create(model="fast", messages=[{"role": "user", "content": given["q"]}])
if given.get("exit"):
    sys.exit(given["exit"])
print(json.dumps({"said": answer.choices[0].message.content}))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bot.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


async def test_a_program_is_metered_through_its_own_address(start: Start, program: Path) -> None:
    app = App("t")
    app.add_program("bot", [sys.executable, str(program)])
    platform = await start(app, model=ScriptedModel([{"say": "Hello"}]))
    run_id = await platform.submit("bot", {"q": "?"})
    await platform.run_until_idle()

    found = await platform.timeline(run_id)
    assert found["run"]["output"] == {"said": "Hello"}
    assert [line["message"] for line in found["logs"]] == ["about to ask"]
    assert [(call["outcome"], call["route"]) for call in found["model_calls"]] == [("answered", "openai:fast")]


RESPONDING = """
import json, sys, openai
client, said = openai.OpenAI(), [{"role": "user", "content": "Which?"}]
tool = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}, "strict": False}
while True:
    answer = client.responses.create(model="fast", input=said, tools=[tool])
    calls = [item for item in answer.output if item.type == "function_call"]
    if not calls:
        break
    said += [item.model_dump(exclude_none=True) for item in answer.output]
    said += [{"type": "function_call_output", "call_id": call.call_id, "output": "42"} for call in calls]
with open("tries", "a") as tries:
    tries.write("x")
if open("tries").read() == "x":
    sys.exit("the first try fails")
print(json.dumps(answer.output_text))
"""


async def test_a_program_that_asks_for_responses_pays_each_once(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "bot.py"
    path.write_text(RESPONDING, encoding="utf-8")
    model = ScriptedModel([{"when": {"after": "lookup"}, "say": "It is 42"}, {"call": {"tool": "lookup"}}])
    app = App("t")
    app.add_program("bot", [sys.executable, str(path)], folder=tmp_path, max_attempts=2)
    platform = await start(app, model=model)
    run_id = await platform.submit("bot", {})
    await platform.run_until_idle()
    await platform.advance(seconds=5)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["output"], run["attempt"]) == ("succeeded", "It is 42", 2), run["error"]
    assert len(model.asked) == 2


async def test_a_program_that_fails_is_tried_again_and_pays_once(start: Start, program: Path) -> None:
    app, model = App("t"), ScriptedModel([{"say": "Hello"}])
    app.add_program("bot", [sys.executable, str(program)], max_attempts=2)
    platform = await start(app, model=model)
    run_id = await platform.submit("bot", {"q": "?", "exit": 3})
    await platform.run_until_idle()
    await platform.advance(seconds=5)
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"]) == ("failed", 2)
    assert "ended with exit code 3: about to ask" in run["error"]["message"]
    assert len(model.asked) == 1


async def test_a_program_past_its_limits_fails_with_the_limit_and_not_again(start: Start, program: Path) -> None:
    app = App("t")
    app.add_program("bot", [sys.executable, str(program)], model="small", max_attempts=3)
    routes = {"small": {"models": ["offline:stand-in"], "max_input_tokens": 5}}
    platform = await start(app, model=ScriptedModel([{"say": "Hello"}]), routes=routes)
    run_id = await platform.submit("bot", {"q": "far too long a question for so small a model" * 10, "dots": 100_000})
    await platform.run_until_idle()

    run = await platform.get(run_id)
    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert "max_input_tokens" in run["error"]["message"]
    assert run["error"]["message"].endswith("then the program failed")


async def test_a_program_without_its_key_gets_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "thief.py"
    path.write_text(PROGRAM.replace("openai.OpenAI()", "openai.OpenAI(api_key='another')"), encoding="utf-8")
    app = App("t")
    app.add_program("thief", [sys.executable, str(path)], max_attempts=1)
    platform = await start(app, model=ScriptedModel([{"say": "Hello"}]))
    run_id = await platform.submit("thief", {"q": "?"})
    await platform.run_until_idle()

    assert "the key of its own run only" in (await platform.get(run_id))["error"]["message"]


async def test_a_program_sees_no_secrets_but_its_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "mine")
    monkeypatch.setenv("OTHER_TOKEN", "not mine")
    path = tmp_path / "look.py"
    path.write_text("import json, os; print(json.dumps(sorted(n for n in os.environ if n.endswith('_TOKEN'))))")
    app = App("t")
    app.add_program("look", [sys.executable, str(path)], secrets=("MY_TOKEN",))
    platform = await start(app)

    assert await platform.run("look") == ["MY_TOKEN"]


async def test_a_cancelled_program_is_killed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "sleep.py"
    path.write_text(
        "import pathlib, time; pathlib.Path('started').touch(); time.sleep(60); pathlib.Path('ended').touch()"
    )
    app = App("t")
    app.add_program("sleeper", [sys.executable, str(path)], folder=tmp_path, timeout_seconds=3, max_attempts=1)
    platform = await start(app, is_frozen=False)
    run_id = await platform.submit("sleeper")
    await platform.run_until_idle()

    assert (await platform.get(run_id))["error"]["type"] == "AttemptTimeout"
    assert (tmp_path / "started").exists()
    assert not (tmp_path / "ended").exists()


def test_what_no_adapter_knows_is_refused() -> None:
    app, own = App("t"), OpenAIChatCompletionsModel("gpt-5-mini", AsyncOpenAI(api_key="any"))

    with pytest.raises(ConfigError, match="is no agent that Pilothouse knows how to run"):
        app.add_agent(object())
    with pytest.raises(ConfigError, match="has no name; give it one"):
        app.add_agent(PydanticAgent(TestModel()))
    with pytest.raises(ConfigError, match="tool 'pay' is said to be 'reed'; there is pure, read"):
        app.add_agent(paying_pydantic_agent([]), effects={"pay": "reed"})
    with pytest.raises(ConfigError, match="the agent has no tool 'pya'; it has pay"):
        app.add_agent(paying_openai_agent([]), effects={"pya": "read"})
    with pytest.raises(ConfigError, match=r"agent 'front' brings a OpenAIChatCompletionsModel, .* app.add_agent"):
        app.add_agent(OpenAIAgent(name="a", handoffs=[OpenAIAgent(name="front", model=own)]))
    with pytest.raises(ConfigError, match="the command is a list"):
        app.add_program("bot", "python bot.py")
