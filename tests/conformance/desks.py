"""One small piece of work, written in every way in which an agent can be: look up an order, send a message, say so."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from agents import Agent as OpenAIAgent
from agents import function_tool
from langchain_core.messages import AnyMessage
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic_ai import Agent as PydanticAgent
from typing_extensions import TypedDict

from pilothouse import App, Context
from pilothouse.agents.langgraph import ChatModel

HERE = Path(__file__).parent
MANY = 100
PROMPT = "Where is order 17?"
ANSWER = "It was sent, and the customer knows."

SCRIPT: list[dict[str, Any]] = [
    {"when": {"after": "nothing", "contains": "two questions"}, "say": "first"},
    {"when": {"after": "nothing", "contains": "second question"}, "say": ANSWER},
    {"when": {"after": "nothing"}, "call": {"tool": "lookup", "arguments": {"order": 17}}},
    {"when": {"after": "lookup"}, "call": {"tool": "send", "arguments": {"text": "order 17 was sent"}}},
    {"when": {"after": "send"}, "say": ANSWER},
]

app = App("conformance")


def lookup(order: int) -> str:
    """Looks up an order."""
    _leave_evidence("lookup")
    return f"order {order} was sent"


def send(text: str) -> str:
    """Sends a message to the customer."""
    _leave_evidence("send")
    return "sent"


def _leave_evidence(what: str) -> None:
    with Path(os.environ["EVIDENCE_FILE"]).open("a") as file:
        file.write(f"{what}\n")


app.tool(effect="read")(lookup)
app.tool(effect="write")(send)


@app.agent(max_losses=MANY)
async def handler(ctx: Context, prompt: str) -> str:
    return await ctx.llm("answer", prompt, tools=[lookup, send])


@app.agent(name="plain-handler", max_losses=MANY)
def plain_handler(ctx: Any, prompt: str) -> str:
    return str(ctx.llm("answer", prompt, tools=["lookup", "send"]))


app.add_workflow(HERE / "workflow.yaml")

pydantic = PydanticAgent("openai:gpt-5-mini", name="pydantic-ai", defer_model_check=True)
pydantic.tool_plain(metadata={"effect": "read"})(lookup)
pydantic.tool_plain(send)
app.add_agent(pydantic, max_losses=MANY, model="default")

openai = OpenAIAgent(name="openai-agents", tools=[function_tool(lookup), function_tool(send)])
app.add_agent(openai, max_losses=MANY, model="default")


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


tools = [langchain_tool(lookup), langchain_tool(send)]
model = ChatModel().bind_tools(tools)


async def think(state: State) -> dict[str, Any]:
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(State)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(tools))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition, {"tools": "tools", END: END})
graph.add_edge("tools", "think")
app.add_agent(graph, name="langgraph", max_losses=MANY)

app.add_program("program", [sys.executable, str(HERE / "program.py")], max_losses=MANY)
