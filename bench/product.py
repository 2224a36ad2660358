"""The same through Pilothouse: its verbs, its worker, its clients of one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench import process
from pilothouse import App, Context
from pilothouse.control import agents, counters
from pilothouse.control.runs import Request, Submitter
from pilothouse.domain.lanes import Lane, Slots
from pilothouse.engine.attempt import NOTHING_AROUND, Surroundings
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.migrations import migrate
from pilothouse.telemetry.events import Emitter

SLOTS = 256
SPAN = "SELECT min(started_at) AS began, max(finished_at) AS ended FROM runs"
app = App("bench")
watchers: list[asyncio.Queue[float]] = []
"""Who wants to know when a no-op run's handler begins."""


async def one() -> int:
    return 1


@app.agent
async def noop(ctx: Context) -> None:
    for watcher in watchers:
        watcher.put_nowait(time.perf_counter())


@app.agent
async def ten_steps(ctx: Context) -> None:
    for number in range(10):
        await ctx.step(f"step-{number}", one)


@app.agent
async def sleeper(ctx: Context) -> None:
    await asyncio.sleep(3600)


@app.agent
async def napper(ctx: Context) -> None:
    await ctx.sleep("nap", hours=1)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = open_database(url)
    await asyncio.to_thread(db.start)
    await asyncio.to_thread(migrate, db)
    cards = [agent.card(app.name, 300.0) for agent in app.agents.values()]
    await db.transaction(lambda tx: agents.register(tx, cards, principal="bench"))
    yield db
    await asyncio.to_thread(db.close)


@asynccontextmanager
async def working(
    db: Database, emitter: Emitter | None = None, around: Surroundings = NOTHING_AROUND
) -> AsyncIterator[None]:
    slots = Slots({Lane.CRITICAL: 0, Lane.NORMAL: SLOTS, Lane.LOW: 0}, 0)
    options = WorkerOptions("bench", slots, LeaseTerms(15_000_000, 3.0), 0.5, 5.0, 300.0)
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(db, app.agents, options, emitter or Emitter(), around).run(stop))
    yield
    stop.set()
    await worker


def request(agent: str) -> Request:
    return Request(agent, {}, principal="bench")


async def submit_batches(submitter: Submitter, agent: str, count: int) -> None:
    for start in range(0, count, 500):
        await submitter.submit_batch([request(agent) for _ in range(min(500, count - start))])


async def until_idle(db: Database) -> None:
    while await db.read(lambda tx: tx.fetch_one("busy_run")) is not None:  # noqa: ASYNC110 - the database is asked
        await asyncio.sleep(0.05)


async def until_drained(db: Database, agent: str) -> None:
    """Until no run of the agent is open, whatever else waits."""
    while await db.read(lambda tx: _open_runs(tx, agent)):  # noqa: ASYNC110 - the database is asked
        await asyncio.sleep(0.02)


def _open_runs(tx: Transaction, agent: str) -> int:
    rows = counters.read(tx, "runs")
    return sum(row["value"] for row in rows if row["agent"] == agent and row["label"] in ("queued", "running"))


async def drain_rate(url: str, agent: str, count: int) -> float:
    """Runs per second from the worker's start to the last settle."""
    async with opened(url) as db:
        await submit_batches(Submitter(db), agent, count)
        started = time.perf_counter()
        async with working(db):
            await until_drained(db, agent)
            return count / (time.perf_counter() - started)


async def queue_rate(url: str, agent: str, count: int) -> float:
    """Runs per second from the worker's start until so many runs of a longer queue have succeeded."""
    async with opened(url) as db:
        started = time.perf_counter()
        async with working(db):
            while (done := await db.read(lambda tx: _succeeded_runs(tx, agent))) < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
            return done / (time.perf_counter() - started)


def _succeeded_runs(tx: Transaction, agent: str) -> int:
    rows = counters.read(tx, "runs")
    return sum(row["value"] for row in rows if row["agent"] == agent and row["label"] == "succeeded")


async def drained_by_processes(url: str, count: int, processes: int) -> float:
    """Runs per second of so many worker processes, from the first claim to the last settle."""
    async with opened(url) as db:
        await submit_batches(Submitter(db), "noop", count)

        def span() -> tuple[int, float]:
            if db.read_blocking(lambda tx: _open_runs(tx, "noop")):
                return 0, 0.0
            (row,) = db.examine(lambda tx: tx.fetch_all(SPAN))
            return count, (row["ended"] - row["began"]) / 1_000_000

        return await asyncio.to_thread(process.drained_by_workers, url, processes, span)


async def http_submits(url: str, seconds: int) -> tuple[float, float]:
    """Over HTTP, to an API that knows the agents: submits per second, and the 99th percentile in ms."""
    async with opened(url):
        return await asyncio.to_thread(process.http_submits, url, seconds)


async def submit_rates(url: str, count: int) -> tuple[float, float, float]:
    """Submits per second: one caller, 64 callers at once, batches of 500."""
    async with opened(url) as db:
        submitter = Submitter(db)
        started = time.perf_counter()
        for _ in range(count // 10):
            await submitter.submit(request("noop"))
        one_caller = count // 10 / (time.perf_counter() - started)

        async def caller() -> None:
            for _ in range(count // 64):
                await submitter.submit(request("noop"))

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(64)))
        many_callers = count // 64 * 64 / (time.perf_counter() - started)
        started = time.perf_counter()
        await submit_batches(submitter, "noop", count)
        return one_caller, many_callers, count / (time.perf_counter() - started)


async def pick_up_ms(url: str, count: int) -> tuple[float, float]:
    """Median and 99th percentile from submit to the handler's first line, on an idle worker of the same process."""
    async with opened(url) as db, working(db):
        submitter, waits = Submitter(db), []
        picked_up: asyncio.Queue[float] = asyncio.Queue()
        watchers.append(picked_up)
        await asyncio.sleep(0.5)
        for _ in range(count):
            started = time.perf_counter()
            await submitter.submit(request("noop"))
            waits.append((await picked_up.get() - started) * 1000)
            await until_idle(db)
    watchers.remove(picked_up)
    waits.sort()
    return waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
