"""Agents that run in processes of their own, and what goes wrong in such processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilothouse import App, Context, FatalError
from pilothouse.domain.retries import Backoff
from pilothouse.engine.sync import SyncContext
from pilothouse.errors import ApprovalRejected, PolicyDenied

app = App("isolated")

AT_ONCE = Backoff(first_seconds=0.0)


async def double(number: int) -> int:
    return 2 * number


@app.agent(isolation="process")
async def everything(ctx: Context, number: int) -> dict[str, Any]:
    """Each of the operations, and all of their ways across the wall."""
    ctx.log("begun", number=number)
    doubled = await ctx.step("double", double, number)
    ctx.progress(1, 3)
    await ctx.sleep("nap", seconds=0.01)
    child = await ctx.start("leaf", {"number": doubled})
    grown = await child.result()
    word = await ctx.wait_for("word")
    return {"grown": grown, "word": word, "process": os.getpid(), "attempt": ctx.attempt}


@app.tool(effect="write")
async def shout(word: str) -> str:
    return word.upper()


@app.agent(isolation="process")
async def calls(ctx: Context, words: list[str]) -> list[str]:
    shouted = [await ctx.tool("shout", word=word) for word in words]
    return [*shouted, await ctx.llm("question", "what?")]


@app.agent(isolation="process", max_attempts=1)
async def waits_for_ever(ctx: Context) -> None:
    await asyncio.Event().wait()


@app.tool(effect="write", amount="amount_usd")
async def refund(amount_usd: float) -> str:
    """Pays back."""
    return f"paid {amount_usd:g} in {os.getpid()}"


@app.agent(isolation="process")
async def asker(ctx: Context) -> list[Any]:
    """Asks people, and is told what they say across the wall."""
    decision = await ctx.approve("plan", recommendation="do it", arguments={"x": 1})
    try:
        paid = await ctx.tool(refund, amount_usd=80)
    except ApprovalRejected as error:
        paid = error.note
    try:
        denied = await ctx.tool(refund, amount_usd=666)
    except PolicyDenied as error:
        denied = str(error)
    return [decision.arguments, paid, denied, os.getpid()]


@app.agent(isolation="process")
def leaf(ctx: SyncContext, number: int) -> int:
    return ctx.step("more", lambda: number + 1)


def rename(results: Mapping[str, Any]) -> dict[str, Any]:
    return {"find": results["look up"]}


@app.agent(isolation="process", state_version=2, migrations={1: rename})
async def renamed(ctx: Context) -> str:
    found: str = await ctx.step("find", str, "nobody")
    await ctx.wait_for("go")
    return found


@app.agent(isolation="process", secrets=("OWN_SECRET",))
def environment(ctx: SyncContext) -> dict[str, str]:
    return dict(os.environ)


@app.agent(isolation="process", max_attempts=1)
async def exits(ctx: Context, code: int) -> None:
    await ctx.step("before", double, 1)
    os._exit(code)


@app.agent(isolation="process", max_attempts=1)
async def kills_itself(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.agent(isolation="process", max_attempts=1, memory_mb=256)
async def eats(ctx: Context, megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


@app.agent(isolation="process", max_attempts=1, timeout_seconds=2.0)
async def never_yields(ctx: Context, evidence: str) -> None:
    Path(evidence).write_text(str(os.getpid()))  # noqa: ASYNC240 - the process is its own
    while True:
        pass


@app.agent(isolation="process", max_attempts=1)
async def forks(ctx: Context, evidence: str) -> str:
    """What it forks writes down its process id and stays, in the same group."""
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code, evidence])  # noqa: ASYNC220 - the process is its own
    while not (Path(evidence).exists() and Path(evidence).read_text()):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)
    return "returned"


@app.agent(isolation="process", max_attempts=1)
async def forks_itself(ctx: Context) -> str:
    """Both go on, and both return; only the attempt's own process counts."""
    if os.fork() == 0:
        time.sleep(600)  # noqa: ASYNC251
    return "returned"


@app.agent(isolation="process", max_attempts=2, backoff=AT_ONCE)
async def fails(ctx: Context, fatal: bool = False) -> None:
    if fatal:
        raise FatalError("never again")
    raise LookupError(f"not found in attempt {ctx.attempt}")


@app.agent(isolation="process", max_attempts=1)
async def waits_long(ctx: Context, evidence: str) -> None:
    try:
        Path(evidence).write_text(str(os.getpid()))  # noqa: ASYNC240 - the process is its own
        await asyncio.sleep(600)
    finally:
        Path(f"{evidence}.cleaned").touch()  # noqa: ASYNC240


@app.agent(isolation="process", max_attempts=1)
async def breaks_the_wire(ctx: Context) -> None:
    """Writes nonsense to every socket it finds."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\x00\x00\x00\x04nope")
        except OSError:
            continue
    await asyncio.sleep(600)


@app.agent
async def in_the_worker(ctx: Context) -> int:
    return os.getpid()


@app.tool(effect="write")
def leave_note(text: str, effect_key: str) -> str:
    return f"{text} under a key of {len(effect_key)}"


@app.agent(isolation="process")
async def asks(ctx: Context) -> dict[str, Any]:
    """Models, tools by their names, streams and memory, from where there are no keys and no database."""
    before = await ctx.recall("times") or 0
    await ctx.remember("times", before + 1)
    answer = await ctx.llm("ask", "Leave a note", tools=["leave_note"])
    pieces = [piece async for piece in ctx.llm_stream("tell", "Tell me")]
    note = await ctx.tool("leave_note", text="mine")
    return {"times": before + 1, "answer": answer, "told": "".join(pieces), "note": note, "process": os.getpid()}


@app.agent(isolation="process")
async def asks_in_vain(ctx: Context) -> str:
    return await ctx.llm("ask", "refused")
