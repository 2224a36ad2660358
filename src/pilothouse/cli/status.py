"""`status`: whether Pilothouse can do its work, as `/ready` says it; its exit code is for scripts."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.safe import safe
from pilothouse.cli.session import open_session
from pilothouse.config import load_settings
from pilothouse.control import readiness
from pilothouse.domain.readiness import Check, Status, worst
from pilothouse.errors import PilothouseError
from pilothouse.store.redis import Redis

if TYPE_CHECKING:
    from pilothouse.config import Settings
    from pilothouse.store.database import Database

EXITS: dict[Status, int] = {"ready": 0, "degraded": 1, "not_ready": 3}
MARKS: dict[Status, tuple[str, str]] = {"ready": ("✓", "green"), "degraded": ("!", "yellow"), "not_ready": ("✗", "red")}
TOLD: dict[Status, tuple[tuple[str, str], str]] = {
    "ready": (("ready", "bold green"), ": every check passes"),
    "degraded": (("degraded", "bold yellow"), ": runs are taken, and some of them will wait"),
    "not_ready": (("not ready", "bold red"), ": no run is taken"),
}


def show(*, as_json: AsJson = False) -> int:
    """Whether Pilothouse can do its work now, and if not, why and what to run next.

    Exits with 0 if it is ready, 1 if it is degraded, 3 if it is not ready.
    """
    checks = _checks()
    verdict = worst(checks)
    if as_json:
        output.print_json({"status": verdict, "checks": {name: asdict(check) for name, check in checks.items()}})
    else:
        out = output.console()
        out.print(Text.assemble("Pilothouse is ", *TOLD[verdict], "\n"))
        out.print(_grid(checks))
    return EXITS[verdict]


def _grid(checks: dict[str, Check]) -> Table:
    grid = Table.grid(padding=(0, 1))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, check in checks.items():
        grid.add_row(Text(*MARKS[check.status]), name, Text(safe(check.detail)))
        if check.command and check.status != "ready":
            grid.add_row("", "", Text(f"next: {check.command}", style="dim"))
    return grid


def _checks() -> dict[str, Check]:
    """What cannot even be asked is not ready: a script must not take it for anything else."""
    try:
        settings = load_settings()
    except PilothouseError as error:
        return {"settings": Check("not_ready", str(error), "pilothouse config show")}
    try:
        with open_session(settings) as db:
            return asyncio.run(_ask(db, settings))
    except PilothouseError as error:
        return {"database": Check("not_ready", str(error))}


async def _ask(db: Database, settings: Settings) -> dict[str, Check]:
    redis = Redis(settings.redis_url) if settings.redis_url else None
    try:
        return await readiness.readiness(db, settings, redis)
    finally:
        if redis is not None:
            await redis.close()
