"""What the gateway and workflows add: model calls beside the same client alone, and a graph beside the same steps.

The provider is the fake one, in a process of its own, on the same machine; so a call is nothing but overhead.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bench.product import opened, until_idle
from pilothouse import App, Context
from pilothouse.config import load_settings
from pilothouse.control import agents
from pilothouse.control.runs import Request, Submitter
from pilothouse.domain.lanes import Lane, Slots
from pilothouse.engine.attempt import Surroundings
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.llm.messages import first_messages
from pilothouse.llm.outputs import Output
from pilothouse.platform import make_gateway
from pilothouse.store.database import Database
from pilothouse.telemetry.events import Emitter

MODEL = "openai:gpt-5-mini"
IN_FLIGHT = 64
NODES = 50
PROMPT = "How are you?"
app = App("bench-models")
latencies: list[float] = []
"""Of the calls of `caller`, in seconds."""


@app.agent(timeout_seconds=600)
async def caller(ctx: Context, calls: int) -> None:
    for number in range(calls):
        began = time.perf_counter()
        await ctx.llm(f"call-{number}", PROMPT)
        latencies.append(time.perf_counter() - began)


def add_one(number: int) -> int:
    return number + 1


@app.agent(timeout_seconds=600)
async def by_hand(ctx: Context) -> int:
    number = 0
    for node in range(NODES):
        number = await ctx.step(f"node_{node}", add_one, number)
    return number


def _workflow() -> str:
    nodes = [
        f"  node_{n}: {{python: 'bench.models:add_one', arguments: {{number: '{{{{ number }}}}'}}, writes: number}}"
        for n in range(NODES)
    ]
    edges = [f"  - {{from: node_{n}, to: {f'node_{n + 1}' if n + 1 < NODES else 'END'}}}" for n in range(NODES)]
    state = "state: {number: {type: int, default: 0}}"
    return "\n".join(
        ["name: graph", state, "output: number", "nodes:", *nodes, "edges:", "  - {from: START, to: node_0}", *edges]
    )


@contextmanager
def fake_provider() -> Iterator[str]:
    """The address of a provider that answers at once."""
    command = [sys.executable, "-m", "pilothouse", "fake-provider", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = str(json.loads(process.stdout.readline())["openai"])
        os.environ.update(OPENAI_BASE_URL=url, OPENAI_API_KEY="bench")
        yield url
        process.terminate()


async def direct(calls: int, in_flight: int) -> tuple[float, float]:
    """The median of a call in seconds, and calls per second, of the client alone."""
    from pydantic_ai.models.openai import OpenAIChatModel

    model = OpenAIChatModel(MODEL.partition(":")[2])
    parameters = Output(str).parameters([])
    taken: list[float] = []

    async def call_in_turn(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            messages = first_messages(None, [{"role": "user", "content": PROMPT}])
            await model.request(messages, {"max_tokens": 4096}, parameters)
            taken.append(time.perf_counter() - began)

    await call_in_turn(10)
    taken.clear()
    began = time.perf_counter()
    await asyncio.gather(*(call_in_turn(calls // in_flight) for _ in range(in_flight)))
    return statistics.median(taken), len(taken) / (time.perf_counter() - began)


async def through_gateway(url: str, calls: int, in_flight: int) -> tuple[float, float]:
    """The same through `ctx.llm`, journaled: every run makes its share of the calls, one after the other."""
    async with opened(url) as db, _working(db):
        await _drain(db, "caller", [{"calls": 10}])
        latencies.clear()
        seconds = await _drain(db, "caller", [{"calls": calls // in_flight}] * in_flight)
        return statistics.median(latencies), len(latencies) / seconds


async def graph_beside_hand(url: str, runs: int) -> tuple[float, float]:
    """Seconds for so many runs of a workflow of 50 nodes, and of the same steps by hand.

    It takes hundreds: an idle database is looked at every 50 ms, which a second hides and a moment does not.
    """
    if "graph" not in app.agents:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(_workflow())
            file.flush()
            app.add_workflow(Path(file.name))
    async with opened(url) as db, _working(db):
        for agent in ("by_hand", "graph"):
            await _drain(db, agent, [{}] * 5)
        return await _drain(db, "graph", [{}] * runs), await _drain(db, "by_hand", [{}] * runs)


async def _drain(db: Database, agent: str, inputs: list[Any]) -> float:
    submitter = Submitter(db)
    began = time.perf_counter()
    await submitter.submit_batch([Request(agent, each, principal="bench") for each in inputs])
    await until_idle(db)
    seconds = time.perf_counter() - began
    await submitter.close()
    return seconds


@asynccontextmanager
async def _working(db: Database) -> AsyncIterator[None]:
    cards = [agent.card(app.name, 600.0) for agent in app.agents.values()]
    await db.transaction(lambda tx: agents.register(tx, cards, principal="bench"))
    settings = load_settings(routes={"default": {"models": [MODEL], "max_calls_per_run": 1_000_000}})
    gateway = make_gateway(db, settings, Emitter())
    slots = Slots({Lane.CRITICAL: 0, Lane.NORMAL: IN_FLIGHT, Lane.LOW: 0}, 0)
    options = WorkerOptions(app.name, slots, LeaseTerms(15_000_000, 3.0), 0.5, 5.0, 600.0)
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(db, app.agents, options, Emitter(), Surroundings(gateway)).run(stop))
    yield
    stop.set()
    await worker
    assert gateway is not None
    await gateway.close()
