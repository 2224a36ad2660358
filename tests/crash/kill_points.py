"""An App whose worker kills itself at the point of a run that the environment names: before, in and after each write.

`KILL_AT` counts the points from 1; at 0 it lives. Every point that is passed is written to the file of `POINTS_FILE`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from pilothouse import App, Context
from pilothouse.control import attempts
from pilothouse.engine.pump import Pump
from tests.crash.agents_under_test import MANY, leave_evidence

POINTS = 48
"""For how many points there are agents; a run passes fewer."""

KILL_AT = os.environ.get("KILL_AT")
POINTS_FILE = Path(os.environ.get("POINTS_FILE", os.devnull))

app = App("kill-points")


def _add_agents(number: int) -> None:
    """Each victim has agents of its own, so that it dies of its own run."""

    @app.agent(name=f"life-{number}", max_losses=MANY)
    async def life(ctx: Context) -> int:
        await ctx.step("first", leave_evidence(ctx, "first"))
        await ctx.sleep("nap", seconds=0.05)
        child = await ctx.start(f"child-{number}")
        await ctx.step("second", leave_evidence(ctx, "second"))
        return int(await child.result())

    @app.agent(name=f"child-{number}", max_losses=MANY)
    async def child(ctx: Context) -> int:
        return await ctx.step("only", leave_evidence(ctx, "only"))


for number in range(POINTS):
    _add_agents(number)


class Reaper:
    """Counts the points of this process, and ends it at the chosen one."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self._passed = 0
        self._has_written = False

    def install(self) -> None:
        for write in ("claim_runs", "write_checkpoints", "settle_attempts"):
            setattr(attempts, write, self._watched(write))
        cycle = Pump._write_once

        async def watched(pump: Pump, *load: Any) -> Any:
            written = await cycle(pump, *load)
            if self._has_written:
                self._pass("heard of the commit")
                self._has_written = False
            return written

        setattr(Pump, "_write_once", watched)  # noqa: B010 - mypy knows it as a method

    def _watched(self, name: str) -> Callable[..., Any]:
        write = getattr(attempts, name)

        @wraps(write)
        def watched(*arguments: Any, **options: Any) -> Any:
            is_certain = name != "claim_runs" and bool(arguments[1])
            if is_certain:
                self._pass(f"before {name}")
            answer = write(*arguments, **options)
            if answer:
                self._has_written = True
                self._pass(f"after {name}, before the commit")
            return answer

        return watched

    def _pass(self, point: str) -> None:
        self._passed += 1
        with POINTS_FILE.open("a") as file:
            file.write(f"{point}\n")
        if self._passed == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


if KILL_AT is not None:
    Reaper(int(KILL_AT)).install()
