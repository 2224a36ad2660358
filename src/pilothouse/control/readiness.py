"""Whether Pilothouse can do its work now, and if not, why and what to run next. Asked often, so it asks little: one
read of small indexes, one write of one row, and nothing that costs money.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pilothouse.clock import Clock
from pilothouse.config import Settings
from pilothouse.control import breakers, budgets, counters, history, leases
from pilothouse.domain.breakers import BreakerState
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import EACH, Balance, Period, Pocket, Unit
from pilothouse.domain.readiness import Answers, Check, Chore, Facts, judge
from pilothouse.errors import StoreError, StoreUnavailable
from pilothouse.store.database import Database, Row, Transaction
from pilothouse.store.migrations import ensure_current_now
from pilothouse.store.redis import Redis

ANSWER_SECONDS = 2.0
"""How long each question may take; three are asked after each other at most."""

CALLS_SECONDS = 300
NO_ANSWER = f"no answer within {ANSWER_SECONDS:.0f} s"
MEGABYTE = 1_000_000


async def readiness(db: Database, settings: Settings, redis: Redis | None = None) -> dict[str, Check]:
    """The checks by name; those that need an answer of the database are left out while it gives none."""
    database = await _ask(asyncio.to_thread(db.check), "it answers")
    if database.status != "ready":
        return {"database": database}
    schema = await _ask(ensure_current_now(db), "it is current", command="pilothouse db migrate")
    if schema.status != "ready":
        return {"database": database, "schema": schema}
    writes, found, disk, cache = await asyncio.gather(
        _ask(leases.prove_writable(db), "it takes writes"), _judged(db, settings), _disk(settings), _redis(redis)
    )
    checks = {"database": database, "schema": schema, "writes": writes, **found, "disk": disk}
    return checks if cache is None else checks | {"redis": cache}


def is_live(worker: Row) -> bool:
    """Whether a worker takes runs: it neither drains nor has let its lease run out."""
    return bool(worker["state"] == "running" and worker["lease_until"] >= worker["now"])


async def _ask(question: Awaitable[None], answer: str, *, command: str | None = None) -> Check:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await question
    except TimeoutError:
        return Check("not_ready", NO_ANSWER)
    except StoreError as error:
        return Check("not_ready", str(error), command)
    return Check("ready", answer)


async def _redis(redis: Redis | None) -> Check | None:
    if redis is None:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await redis.check()
    except (StoreUnavailable, TimeoutError) as error:
        told = str(error) or NO_ANSWER
        return Check("degraded", f"{told}; limits and kept answers are in the database for now")
    return Check("ready", "it answers")


async def _disk(settings: Settings) -> Check:
    """The disks of what this process writes: the database's file and the logs."""
    told, is_short = [], False
    for what, folder in _folders(settings):
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, folder)).free
        except OSError as error:
            return Check("degraded", f"the disk of {what} cannot be looked at: {error.strerror}")
        told.append(f"{free / 1000 / MEGABYTE:,.1f} GB free for {what}")
        is_short |= free < settings.least_free_disk_mb * MEGABYTE
    if is_short:
        short = f"{'; '.join(told)}: less than {settings.least_free_disk_mb} MB (PILOTHOUSE_LEAST_FREE_DISK_MB)"
        return Check("degraded", short, "pilothouse db storage")
    return Check("ready", "; ".join(told) or "this process keeps nothing on a disk of its own")


def _database_folder(settings: Settings) -> Path | None:
    if not settings.database_url.startswith("sqlite:///"):
        return None
    return Path(unquote(urlsplit(settings.database_url).path.removeprefix("/"))).absolute().parent


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """What this process writes, and where."""
    if (folder := _database_folder(settings)) is not None:
        yield "the database", folder
    for folder in sorted({file.absolute().parent for file in settings.log_files}):
        yield "the logs", folder


# --- what the database knows -------------------------------------------------------------------


async def _judged(db: Database, settings: Settings) -> dict[str, Check]:
    routes = {name: route.models for name, route in settings.routes.items()}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            facts = await db.read(partial(_facts, calendar=settings.calendar, clock=_clock_of(db)))
    except TimeoutError:
        return {"state": Check("not_ready", NO_ANSWER)}
    except StoreError as error:
        return {"state": Check("not_ready", str(error))}
    return judge(facts, routes)


def _clock_of(db: Database) -> Clock | None:
    """This process's own clock, where the database has another."""
    return None if db.dialect == "sqlite" else db.clock


def _facts(tx: Transaction, calendar: Calendar, clock: Clock | None) -> Facts:
    workers = tx.fetch_all("leased_workers")
    takers = sum(1 for row in workers if row["state"] == "running" and row["is_enabled"])
    resting = {row["name"]: row["reason"] for row in breakers.list_in(tx) if row["state"] == BreakerState.OPEN}
    return Facts(
        takers=takers,
        idle=len(workers) - takers,
        chores=tuple(Chore(turn.chore, turn.age_seconds, turn.is_late) for turn in leases.turns_in(tx)),
        agents=tuple(row["name"] for row in tx.fetch_all("agent_versions")),
        resting=resting,
        users=_users(counters.read(tx)) if resting else {},
        answers=_answers(tx),
        switches=tuple(row["scope"] for row in tx.fetch_all("list_switches")),
        spent=_spent(tx, calendar),
        skew_seconds=None if clock is None else _skew_seconds(tx, clock),
    )


def _users(rows: Iterable[Row]) -> dict[str, frozenset[str]]:
    """The agents that have called each dependency."""
    users: dict[str, set[str]] = defaultdict(set)
    for name, agent in breakers.uses_in(rows):
        users[name].add(agent)
    return {name: frozenset(agents) for name, agents in users.items()}


def _answers(tx: Transaction) -> dict[str, Answers]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, span in history.spans_in(tx, "model_calls", seconds=CALLS_SECONDS).items():
        model, _, outcome = key.label.rpartition("/")
        counts[model][outcome] += span.increase
    return {model: Answers(found["answered"], found["failed"]) for model, found in counts.items()}


def _spent(tx: Transaction, calendar: Calendar) -> tuple[str, ...]:
    """The accounts of days and months that have no room left, such as `global microusd 2026-11-21`."""
    limits = {
        (Pocket(scope, budgets.period_of(tx, period, calendar)), unit): row["amount"]
        for (scope, period, unit), row in budgets.limit_rows(tx).items()
        if period is not Period.RUN and not scope.endswith(f":{EACH}") and row["amount"] is not None
    }
    balances = budgets.kept_balances(tx, (pocket for pocket, _ in limits))
    return tuple(
        f"{pocket.account} {'money' if unit is Unit.MICROUSD else unit} of {pocket.period}"
        for (pocket, unit), amount in sorted(limits.items())
        if _used(balances.get(pocket), unit) >= amount
    )


def _used(balance: Balance | None, unit: Unit) -> int:
    return balance.settled.of(unit) + balance.reserved.of(unit) if balance else 0


def _skew_seconds(tx: Transaction, clock: Clock) -> float:
    """How far this process is ahead of the database, at the middle of the question."""
    before = clock.now_us()
    row = tx.fetch_one("current_instant")
    assert row is not None
    return ((before + clock.now_us()) / 2 - int(row["now"])) / 1_000_000
