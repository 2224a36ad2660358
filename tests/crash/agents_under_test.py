"""Agents whose steps leave evidence outside of the database: a line in a file for each execution."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from pilothouse import App, Context

app = App("under-test")

EVIDENCE = Path(os.environ.get("EVIDENCE_FILE", os.devnull))
GATE = Path(os.environ.get("GATE_FILE", os.devnull))
LOOK_SECONDS = 0.01


def leave_evidence(ctx: Context, step: str) -> Callable[[], int]:
    """A step's function. The attempt is no argument of it: the next attempt must ask for the same step."""

    def execute() -> int:
        """One line, written at once or not at all."""
        with EVIDENCE.open("ab", buffering=0) as file:
            file.write(f"{ctx.run_id} {step} {ctx.attempt}\n".encode())
        return ctx.attempt

    return execute


@app.agent(max_losses=50)
async def worker_bee(ctx: Context, steps: int = 5, pause_seconds: float = 0.01) -> int:
    """Some steps with a little time in between, so that a kill finds it anywhere."""
    for number in range(steps):
        await ctx.step(f"step-{number}", leave_evidence(ctx, f"step-{number}"))
        await asyncio.sleep(pause_seconds)
    return steps


@app.agent(max_losses=50)
async def gated(ctx: Context) -> str:
    """One step, then it holds its slot until the gate file is there, then another step."""
    await ctx.step("before", leave_evidence(ctx, "before"))
    while not GATE.exists():  # noqa: ASYNC110, ASYNC240 - the gate is a file
        await asyncio.sleep(LOOK_SECONDS)
    await ctx.step("after", leave_evidence(ctx, "after"))
    return "done"


@app.agent(max_losses=3)
async def poison(ctx: Context) -> None:
    """Takes its worker along."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.agent
async def stubborn(ctx: Context) -> None:
    """Swallows everything, for ever."""
    while True:
        try:
            await asyncio.sleep(0.01)
        except BaseException:  # noqa: BLE001 - what it is for
            continue
