"""Agents whose tools die in the middle of their first call, and leave evidence of every call outside the database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from pilothouse import App, Context
from pilothouse.domain.effects import Effect

app = App("effects-under-test")

FOLDER = Path(os.environ.get("EVIDENCE_FILE", os.devnull)).parent
CALLS, TRIES = FOLDER / "calls.txt", FOLDER / "tries.txt"
MANY = 100

When = Literal["before", "after", "never"]


def add_line(path: Path, line: str) -> None:
    """Written at once or not at all."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def make_call() -> Callable[..., Coroutine[Any, Any, str]]:
    async def call(run: str, when: When) -> str:
        is_first = run not in lines(TRIES)
        add_line(TRIES, run)
        if is_first and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        add_line(CALLS, run)
        if is_first and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    return call


def verify(run: str, when: When) -> str | None:
    """What the outside knows of the call."""
    return f"{when}: verified" if run in lines(CALLS) else None


for effect in Effect:
    app.tool(name=f"do_{effect}", effect=effect)(make_call())
app.tool(name="do_verified", effect=Effect.IRREVERSIBLE, verify=verify)(make_call())


@app.agent(max_losses=MANY)
async def caller(ctx: Context, tool: str, when: When) -> str:
    return str(await ctx.tool(f"do_{tool}", step_name="act", run=ctx.run_id, when=when))
