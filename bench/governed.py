"""What governance adds: a tool call that is reserved, intended and settled beside one that is only journaled, and many
callers on one budget beside as many with a budget each.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from bench.product import opened, until_idle
from pilothouse import App, Context
from pilothouse.clock import new_id
from pilothouse.config import load_settings
from pilothouse.control import agents, limits
from pilothouse.control.ledger import Charge, Hold, Ledger
from pilothouse.control.limits import RunLimits
from pilothouse.control.runs import Request, Submitter
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.lanes import Lane, Slots
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.engine.attempt import Surroundings
from pilothouse.engine.lease import LeaseTerms
from pilothouse.engine.worker import Worker, WorkerOptions
from pilothouse.errors import LimitReached
from pilothouse.store.database import Database
from pilothouse.telemetry.events import Emitter

IN_FLIGHT = 64
WORKERS = 4
"""Each with connections of its own, as so many processes have them."""

CENT = 10_000
app = App("bench-governed")
latencies: dict[str, list[float]] = {"order": [], "look": []}
"""Of the calls of each tool, in seconds."""


@app.tool(effect="pure")
async def look(number: int) -> int:
    return number


@app.tool(effect="write", platform="shop", cost_usd=0.000001)
async def order(number: int) -> int:
    return number


@app.agent(timeout_seconds=600)
async def caller(ctx: Context, tools: list[str], calls: int) -> None:
    """By turns, so that each tool meets the same machine."""
    for number in range(calls):
        for tool in tools:
            began = time.perf_counter()
            await ctx.tool(tool, step_name=f"{tool}-{number}", number=number)
            latencies[tool].append(time.perf_counter() - began)


async def alone(url: str, count: int) -> tuple[float, float]:
    """The medians of a governed and of an ungoverned call in seconds, under every limit that the settings set."""
    async with opened(url) as db, _working(db):
        await _drain(db, ["order", "look"], 20, 1)
        _forget()
        await _drain(db, ["order", "look"], count, 1)
        return statistics.median(latencies["order"]), statistics.median(latencies["look"])


async def rate(url: str, tool: str, count: int) -> float:
    """Calls per second, of many at once."""
    async with opened(url) as db, _working(db):
        await _drain(db, [tool], 20, 1)
        _forget()
        seconds = await _drain(db, [tool], count // IN_FLIGHT, IN_FLIGHT)
        return len(latencies[tool]) / seconds


def _forget() -> None:
    for each in latencies.values():
        each.clear()


async def _drain(db: Database, tools: list[str], calls: int, runs: int) -> float:
    submitter = Submitter(db)
    began = time.perf_counter()
    await submitter.submit_batch(
        [Request("caller", {"tools": tools, "calls": calls}, principal="bench") for _ in range(runs)]
    )
    await until_idle(db)
    seconds = time.perf_counter() - began
    await submitter.close()
    return seconds


@asynccontextmanager
async def _working(db: Database) -> AsyncIterator[None]:
    settings = load_settings(max_run_tool_calls=10**6, max_actions_per_day=10**6)
    cards = [agent.card(app.name, 600.0) for agent in app.agents.values()]
    await db.transaction(lambda tx: agents.register(tx, cards, principal="bench"))
    await db.transaction(lambda tx: limits.adopt(tx, settings.limits, principal="bench"))
    slots = Slots({Lane.CRITICAL: 0, Lane.NORMAL: IN_FLIGHT, Lane.LOW: 0}, 0)
    options = WorkerOptions(app.name, slots, LeaseTerms(15_000_000, 3.0), 0.5, 5.0, 600.0)
    stop = asyncio.Event()
    around = Surroundings(run_limits=RunLimits(db))
    worker = asyncio.create_task(Worker(db, app.agents, options, Emitter(), around).run(stop))
    yield
    stop.set()
    await worker


class Spent(NamedTuple):
    """What many callers came to: calls per second, and micro-dollars beyond the budget and left of it."""

    rate: float
    overspent: int
    left: int


async def spend(url: str, budget_usd: int, budgets: int) -> Spent:
    """64 callers use up a budget in calls of a cent, of which each reserves two; or each a budget of its own."""
    amount = budget_usd * 100 * CENT // budgets
    async with opened(url) as db, AsyncExitStack() as stack:
        others = [await stack.enter_async_context(opened(url)) for _ in range(WORKERS - 1)]
        ledgers = [Ledger(each, UTC_CALENDAR) for each in (db, *others)]
        runs = await _running(db, budgets)
        for number in range(budgets):
            limit = Limit(f"tenant:t{number}", Period.DAY, Unit.MICROUSD, amount)
            await limits.set_limit(db, limit, principal="bench")
        began = time.perf_counter()
        spent = await asyncio.gather(*(_spend(ledgers[place % WORKERS], payer) for place, payer in enumerate(runs)))
        seconds = time.perf_counter() - began
        used = sum(spent) * CENT
    whole = amount * budgets
    return Spent(sum(spent) / seconds, max(0, used - whole), max(0, whole - used))


async def _spend(ledger: Ledger, payer: Payer) -> int:
    calls = 0
    while True:
        hold = Hold(new_id(), "s", 1, payer, Amounts(2 * CENT))
        try:
            await ledger.reserve(hold)
        except LimitReached as error:
            if not error.reached.is_contended:
                return calls
            await asyncio.sleep(0.01)
            continue
        await ledger.settle(Charge(hold.id, Amounts(CENT)))
        calls += 1


RUNNING = """INSERT INTO runs (id, tenant, agent, lane, priority, state, attempt, max_attempts, max_losses, input,
root_id, created_at) VALUES (:id, :tenant, 'bench', 'normal', 0, 'running', 1, 3, 5, '{}', :id, 0)"""


async def _running(db: Database, tenants: int) -> Sequence[Payer]:
    """Runs that are under way, for each caller one."""
    payers = [Payer(new_id(), f"t{place % tenants}", "bench") for place in range(IN_FLIGHT)]
    await asyncio.to_thread(
        lambda: db.administer(
            lambda tx: [tx.execute(RUNNING, id=payer.run_id, tenant=payer.tenant) for payer in payers]
        )
    )
    return payers
