"""`events tail`: what happens now, out of the record that all processes share, or out of a log file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pilothouse.cli import output
from pilothouse.cli.output import AsJson
from pilothouse.cli.record_view import print_record
from pilothouse.cli.session import run
from pilothouse.control import audit
from pilothouse.control.views import view
from pilothouse.errors import ConfigError, StoreUnavailable
from pilothouse.store.database import Database, Row
from pilothouse.telemetry.log_file import EventFile
from pilothouse.telemetry.logs import LEVEL_NUMBERS

LOOK_SECONDS = 0.3
LEVEL_STYLES: Mapping[str, str] = {"debug": "dim", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events. `name` may hold `*`; `limit` ends the command after so many."""

    name: str | None
    agent: str | None
    run: str | None
    tenant: str | None
    level: str
    limit: int | None

    @property
    def exact_name(self) -> str | None:
        return None if self.name is None or "*" in self.name else self.name

    def covers(self, name: str, agent: str | None, runs: tuple[str | None, ...], tenant: str | None) -> bool:
        return (
            (self.name is None or fnmatchcase(name, self.name))
            and self.agent in (None, agent)
            and (self.run is None or self.run in runs)
            and self.tenant in (None, tenant)
        )


def tail(
    *,
    name: Annotated[
        str | None, Parameter(name=["--name", "--action"], help="Only these, such as run.failed or 'run.*'.")
    ] = None,
    agent: Annotated[str | None, Parameter(help="Only of this agent.")] = None,
    run_id: Annotated[str | None, Parameter(name="--run", help="Only of this run.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant.")] = None,
    after: Annotated[
        int | None, Parameter(help="Go on after this number, where an earlier one has ended; 0: from the beginning.")
    ] = None,
    limit: Annotated[int | None, Parameter(name=["--limit", "-n"], help="End after so many.")] = None,
    file: Annotated[
        Path | None, Parameter(help="A log file of JSON lines: every typed event, calls of models and tools included.")
    ] = None,
    level: Annotated[str, Parameter(help="Of a log file: this level and those above it.")] = "info",
    as_json: AsJson = False,
) -> None:
    """Follow every change of state, from all processes, until Ctrl-C. None is left out while the database restarts."""
    wanted = Wanted(name, agent, run_id, tenant, level, limit)
    if level not in LEVEL_NUMBERS:
        raise ConfigError(f"level {level!r} does not exist; use one of {', '.join(LEVEL_NUMBERS)}")
    if file is None:
        run(lambda db: _follow_record(db, wanted, after, as_json=as_json))
    elif after or tenant:
        raise ConfigError("a log file knows no --tenant, and of --after only 0: from its beginning")
    else:
        with closing(EventFile(file, from_beginning=after == 0)) as events:
            _follow_file(events, wanted, as_json=as_json)


# --- the record ----------------------------------------------------------------------------------


async def _follow_record(db: Database, wanted: Wanted, after: int | None, *, as_json: bool) -> None:
    after = await audit.last_seq(db) if after is None else after
    follower = audit.Follower(db, after=after, action=wanted.exact_name, tenant=wanted.tenant)
    told = 0
    async with aclosing(_records(follower, audit.Agents(db))) as records:
        async for row, agent in records:
            if wanted.covers(row["action"], agent, (row["entity_id"], row["run_id"]), row["tenant"]):
                print_record(view(row) | {"agent": agent}, as_json=as_json)
                told += 1
                if told == wanted.limit:
                    return


async def _records(follower: audit.Follower, agents: audit.Agents) -> AsyncGenerator[tuple[Row, str | None], None]:
    """Each record with its agent, for ever; while the database is away, nothing, and afterwards what was missed."""
    rows: list[Row] = []
    is_away = False
    while True:
        try:
            rows = rows or await follower.next()
            names = await agents.of(rows)
        except StoreUnavailable as error:
            if not is_away:
                output.errors().print(f"the database is away, nothing will be left out: {error}", soft_wrap=True)
            is_away = True
            await asyncio.sleep(LOOK_SECONDS)
            continue
        is_away = False
        for told in zip(rows, names, strict=True):
            yield told
        if not rows:
            await asyncio.sleep(LOOK_SECONDS)
        rows = []


# --- a log file ----------------------------------------------------------------------------------


def _follow_file(events: EventFile, wanted: Wanted, *, as_json: bool) -> None:
    told, least = 0, LEVEL_NUMBERS[wanted.level]
    while True:
        found = events.read()
        for event in found:
            context = event["context"]
            is_loud = LEVEL_NUMBERS.get(event["level"], 0) >= least
            if is_loud and wanted.covers(event["message"], context.get("agent"), (context.get("run_id"),), None):
                _print_event(event, as_json=as_json)
                told += 1
                if told == wanted.limit:
                    return
        if not found:
            time.sleep(LOOK_SECONDS)


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        return output.print_json(event)
    fields = "  ".join(f"{name}={_shown(value)}" for name, value in event["context"].items() if value is not None)
    line = Text.assemble(
        (f"{output.clock_time(event['timestamp'])}  ", "dim"),
        (f"{event['message']:<22}", LEVEL_STYLES.get(event["level"], "default")),
        f" {fields}",
    )
    return output.console().print(line, soft_wrap=True)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
