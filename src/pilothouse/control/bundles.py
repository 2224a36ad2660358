"""Bundles: what somebody elsewhere needs to see to say what is wrong, in one archive, with the secrets taken out."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pilothouse.clock import Clock
from pilothouse.config import Settings
from pilothouse.control import agents, alerts, breakers, checks, dead, insights, leases, readiness, workers
from pilothouse.control.dead import DeadFilter
from pilothouse.control.top import top
from pilothouse.control.views import view
from pilothouse.domain.hiding import Hiding
from pilothouse.errors import ConfigError, StoreError
from pilothouse.store import activity, migrations
from pilothouse.store.database import Database
from pilothouse.store.storage import measure

PART_SECONDS = 15.0
SLOW_PART_SECONDS = 120.0
SILENT_PARTS = 2
"""After so many parts without an answer in time, one behind the other, the rest is not asked for."""

DEAD_SHOWN = 200
WORKERS_SHOWN = 200
MODE = 0o600
"""Only who made it may read it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a bundle: `problem` is why there is nothing in it, `seconds` how long it took to find out."""

    name: str
    what: str
    bytes: int
    seconds: float
    problem: str | None = None


@dataclass(slots=True)
class Bundle:
    """An archive that is being written; whatever is added goes through `hiding`."""

    hiding: Hiding
    folder: str
    clock: Clock
    archive: tarfile.TarFile
    entries: list[Entry] = field(default_factory=list)

    def add_json(self, name: str, what: str, value: Any, *, seconds: float = 0.0) -> None:
        """A value that JSON can hold."""
        plain = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str))
        text = orjson.dumps(self.hiding.value(plain), option=orjson.OPT_INDENT_2).decode()
        self._add(name, what, self.hiding.text(text) + "\n", seconds)

    def add_log(self, name: str, what: str, text: str) -> None:
        """The lines of a log."""
        self._add(name, what, "".join(self.hiding.line(line) + "\n" for line in text.splitlines()), 0.0)

    def add_problem(self, name: str, what: str, problem: str, *, seconds: float = 0.0) -> None:
        """Why a part is not there."""
        self.entries.append(Entry(name, what, 0, seconds, self.hiding.text(problem)))

    def _add(self, name: str, what: str, text: str, seconds: float) -> None:
        body = text.encode("utf-8", "replace")
        entry = tarfile.TarInfo(f"{self.folder}/{name}")
        entry.size, entry.mode, entry.mtime = len(body), MODE, self.clock.now_us() // 1_000_000
        self.archive.addfile(entry, io.BytesIO(body))
        self.entries.append(Entry(name, what, len(body), round(seconds, 3)))


@contextmanager
def writing(path: Path, hiding: Hiding, clock: Clock) -> Iterator[Bundle]:
    """A bundle that is at `path` once it is whole, and nowhere otherwise. Raises ConfigError where it cannot be."""
    part = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                yield Bundle(hiding, path.name.removesuffix(".tar.gz"), clock, archive)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


# --- what the database knows -------------------------------------------------------------------

Look = Callable[[Database, Settings], Awaitable[Any]]


class Part(NamedTuple):
    """A file with what `look` finds; `is_slow`: on a large database it takes its time."""

    name: str
    what: str
    look: Look
    is_slow: bool = False


async def add_parts(bundle: Bundle, db: Database, settings: Settings, *, quick: bool) -> None:
    """Adds what the database knows; a part that cannot be had says why. `quick` leaves out what is slow."""
    silent = 0
    async for part, found, problem, seconds in _looks(db, settings, bundle.clock, quick=quick):
        silent = silent + 1 if isinstance(problem, TimeoutError) else 0
        if problem is None:
            bundle.add_json(part.name, part.what, found, seconds=seconds)
        else:
            told = str(problem) or f"no answer within {seconds:.0f} s"
            bundle.add_problem(part.name, part.what, told, seconds=seconds)
        if silent == SILENT_PARTS:
            bundle.add_problem("database", "the rest", "the database does not answer; nothing more was asked")
            return


async def _looks(
    db: Database, settings: Settings, clock: Clock, *, quick: bool
) -> AsyncIterator[tuple[Part, Any, Exception | None, float]]:
    for part in PARTS:
        if quick and part.is_slow:
            continue
        began, found, problem = clock.monotonic(), None, None
        try:
            async with asyncio.timeout(SLOW_PART_SECONDS if part.is_slow else PART_SECONDS):
                found = await part.look(db, settings)
        except (StoreError, TimeoutError, OSError) as error:
            problem = error
        yield part, found, problem, clock.monotonic() - began


async def _readiness(db: Database, settings: Settings) -> Any:
    return {name: asdict(check) for name, check in (await readiness.readiness(db, settings)).items()}


async def _schema(db: Database, _: Settings) -> Any:
    return [view(row._asdict()) for row in await asyncio.to_thread(migrations.status, db)]


async def _database(db: Database, _: Settings) -> Any:
    return {"dialect": db.dialect, "version": await asyncio.to_thread(activity.version, db)}


async def _queue(db: Database, _: Settings) -> Any:
    return [asdict(each) for each in await insights.queue_insights(db)]


async def _agents(db: Database, _: Settings) -> Any:
    shown = [agents.public(row) for row in await agents.list_agents(db)]
    return [{name: value for name, value in row.items() if not name.endswith("_schema")} for row in shown]


async def _workers(db: Database, _: Settings) -> Any:
    return [view(row) for row in await workers.list_workers(db, limit=WORKERS_SHOWN)]


async def _dead(db: Database, _: Settings) -> Any:
    """Without what their errors say: it may hold what users have written."""
    return [_told(view(row)) for row in await dead.list_dead(db, DeadFilter(), limit=DEAD_SHOWN)]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    error = row["error"] or {}
    kept = {name: row[name] for name in ("id", "agent", "lane", "attempt", "created_at", "finished_at")}
    return kept | {"error": error.get("type"), "step": error.get("step")}


async def _alerts(db: Database, _: Settings) -> Any:
    return [alerts.public(row) for row in await alerts.live_alerts(db)]


async def _breakers(db: Database, _: Settings) -> Any:
    return [breakers.public(row) for row in await breakers.list_breakers(db)]


async def _chores(db: Database, _: Settings) -> Any:
    return [turn._asdict() for turn in await db.read(leases.turns_in)]


async def _statements(db: Database, _: Settings) -> Any:
    """What the server does now and what took it longest; SQLite has no server to ask."""
    now, slowest = await asyncio.gather(
        asyncio.to_thread(activity.under_way, db), asyncio.to_thread(activity.slowest, db), return_exceptions=True
    )
    none = "SQLite keeps no such figures; contents.json says how long each part of this bundle took"
    missing = none if db.dialect == "sqlite" else "the extension pg_stat_statements is not there"
    return {"under_way": none if now is None else now, "slowest": missing if slowest is None else slowest}


async def _checks(db: Database, settings: Settings) -> Any:
    found = await checks.check(db, grace_us=settings.lease_us)
    return [asdict(verdict) | {"holds": verdict.holds} for verdict in found]


async def _storage(db: Database, _: Settings) -> Any:
    return asdict(await asyncio.to_thread(measure, db))


PARTS = (
    Part("readiness.json", "what `pilothouse status` says", _readiness),
    Part("overview.json", "what `pilothouse top` shows", top),
    Part("database.json", "which database it is", _database),
    Part("schema.json", "the migrations", _schema),
    Part("queue.json", "runs and attempts of each agent and lane", _queue),
    Part("agents.json", "the agents and the code they have", _agents),
    Part("workers.json", "the workers and what they hold", _workers),
    Part("dead.json", "dead letters, without what their errors say", _dead),
    Part("alerts.json", "alerts that fire or are pending", _alerts),
    Part("breakers.json", "circuit breakers", _breakers),
    Part("chores.json", "when the scheduler did its chores last", _chores),
    Part("statements.json", "statements under way, and the slowest ones", _statements),
    Part("checks.json", "the invariants, as `pilothouse db check` proves them", _checks, is_slow=True),
    Part("storage.json", "the room that each table takes", _storage, is_slow=True),
)
