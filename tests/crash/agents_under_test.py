"""Agents whose steps leave evidence outside of the database: a line in a file, opened with O_APPEND, per execution."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from pilothouse import App, Context

app = App("under-test")

EVIDENCE = Path(os.environ.get("EVIDENCE_FILE", os.devnull))
GATE = Path(os.environ.get("GATE_FILE", os.devnull))
LOOK_SECONDS = 0.01
MANY = 100


MARKS = EVIDENCE.with_suffix(".marks")
"""One line per effect: its run, its number, the instant at which it began in microseconds, and the process."""


def note(ctx: Context, step: str) -> None:
    """One line, written at once or not at all."""
    with EVIDENCE.open("ab", buffering=0) as file:
        file.write(f"{ctx.run_id} {step} {ctx.attempt} {os.getpid()}\n".encode())


def leave_evidence(ctx: Context, step: str, seconds: float = 0.0) -> Callable[[], int]:
    """A step's function. The attempt is no argument of it: the next attempt must ask for the same step."""

    def execute() -> int:
        note(ctx, step)
        time.sleep(seconds)
        return ctx.attempt

    return execute


def pass_gate(ctx: Context, step: str) -> Callable[[], Coroutine[Any, Any, int]]:
    """A step's function that ends when the gate file is there."""

    async def execute() -> int:
        note(ctx, step)
        while not GATE.exists():  # noqa: ASYNC110, ASYNC240 - the gate is a file
            await asyncio.sleep(LOOK_SECONDS)
        return ctx.attempt

    return execute


@app.agent(max_losses=MANY)
async def worker_bee(
    ctx: Context, steps: int = 5, pause_seconds: float = 0.01, step_seconds: float = 0.0
) -> dict[str, int]:
    """Which attempt executed each step. Time passes inside of steps and between, so that a kill finds it anywhere."""
    executed_by = {}
    for number in range(steps):
        step = f"step-{number}"
        executed_by[step] = await ctx.step(step, leave_evidence(ctx, step, step_seconds))
        await asyncio.sleep(pause_seconds)
    return executed_by


def leave_mark(run_id: str, number: int) -> None:
    with MARKS.open("ab", buffering=0) as file:
        file.write(f"{run_id} {number} {time.time_ns() // 1000} {os.getpid()}\n".encode())


@app.tool(effect="write")
async def write_mark(run_id: str, number: int) -> None:
    """An effect on the world outside that a run must not have twice."""
    leave_mark(run_id, number)
    await asyncio.sleep(0.002)


@app.tool(effect="idempotent")
def put_mark(run_id: str, number: int) -> None:
    """One that it may have twice, on a thread."""
    leave_mark(run_id, number)
    time.sleep(0.002)


@app.agent(max_losses=MANY, max_attempts=1)
async def marker(ctx: Context, marks: int, tool: str = "write_mark") -> int:
    """Leaves so many marks, one after the other."""
    for number in range(marks):
        await ctx.tool(tool, run_id=ctx.run_id, number=number)
    return marks


@app.agent(max_losses=MANY)
async def queen(ctx: Context, children: int) -> list[dict[str, int]]:
    """Starts bees and waits for all of them, suspended."""
    started = await ctx.start_many("bees", "worker_bee", [{"steps": 2}] * children)
    outcomes: list[dict[str, int]] = await ctx.results("outcomes", started)
    return outcomes


@app.tool(effect="write", amount="amount_usd")
def refund(amount_usd: float) -> str:
    """Pays back."""
    with EVIDENCE.open("ab", buffering=0) as file:
        file.write(f"{current_run.get()} refund-{amount_usd:g} 0 {os.getpid()}\n".encode())
    return f"paid {amount_usd:g}"


current_run: ContextVar[str] = ContextVar("current_run")


@app.agent(max_losses=MANY)
async def asker(ctx: Context) -> str:
    """Asks people twice: for a plan, and before its tool."""
    current_run.set(ctx.run_id)
    await ctx.step("before", leave_evidence(ctx, "before"))
    await ctx.approve("plan", recommendation="do it")
    return str(await ctx.tool(refund, amount_usd=80))


@app.agent(max_losses=MANY)
async def gated(ctx: Context) -> list[int]:
    """One step, then a second that holds its slot until the gate file is there, then a third."""
    return [
        await ctx.step("before", leave_evidence(ctx, "before")),
        await ctx.step("gate", pass_gate(ctx, "gate")),
        await ctx.step("after", leave_evidence(ctx, "after")),
    ]


@app.agent(max_losses=3)
async def poison(ctx: Context, way: Literal["exit", "kill"]) -> None:
    """Takes its worker along."""
    await ctx.step("before", leave_evidence(ctx, "before"))
    note(ctx, way)
    if way == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)


@app.agent(max_losses=MANY, isolation="process", secrets=("EVIDENCE_FILE", "GATE_FILE"))
async def walled(ctx: Context) -> list[int]:
    """As `gated`, in a process of its own."""
    return [
        await ctx.step("before", leave_evidence(ctx, "before")),
        await ctx.step("gate", pass_gate(ctx, "gate")),
    ]


@app.agent
async def stubborn(ctx: Context) -> None:
    """Swallows everything, for ever."""
    while True:
        try:
            await asyncio.sleep(0.01)
        except BaseException:  # noqa: BLE001 - what it is for
            continue


@app.agent
async def unstorable(ctx: Context) -> object:
    await ctx.step("before", leave_evidence(ctx, "before"))
    return object()


@app.agent(max_losses=MANY)
async def questioner(ctx: Context, number: int) -> str:
    return await ctx.llm("ask", f"What is {number}?", max_tokens=1000)
