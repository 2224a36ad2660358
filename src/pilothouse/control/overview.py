"""The overview: how the whole platform stands, what it did today, and its last hour, each from one read."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pilothouse.control import alerts, budgets, counters, dead, history, insights, switches, workers
from pilothouse.control.dead import DeadFilter
from pilothouse.control.instants import now
from pilothouse.domain.budgets import Standing
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.history import CUMULATIVE, Span
from pilothouse.domain.limits import Unit
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database, Row, Transaction

WORKERS_SHOWN = 12
RUNS_SHOWN = 15
DEAD_COUNTED = 100
APPROVALS_COUNTED = 100
DEPTHS: tuple[str, ...] = (RunState.QUEUED, RunState.RUNNING)

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
ALIGNED_US = 5_000_000

Line = dict[int, int]
"""By instant, in microseconds."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The platform as it stands `now` (an instant in microseconds). `dead` is cut after a hundred and one."""

    now: int
    queues: list[insights.QueueInsight]
    workers: list[Row]
    runs: list[Row]
    switches: list[Row]
    day: Standing
    month: Standing
    blocked_runs: int
    dead: list[Row]
    alerts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentDay:
    """What an agent did since midnight. `ended` are its runs by state; `limit_microusd` None: it has none of a day."""

    agent: str
    ended: dict[str, int]
    cost_microusd: int
    limit_microusd: int | None

    @property
    def runs_ended(self) -> int:
        return sum(self.ended.values())

    @property
    def success_share(self) -> float | None:
        """Of the runs that succeeded or failed; None where there were none."""
        return success_share(self.ended)


@dataclass(frozen=True, slots=True)
class Past:
    """Today by agent, the last hour minute by minute, and the approvals that wait, those with the nearest
    deadline, at most a hundred and one.

    `ended` are the runs that ended in the minute before each of the `instants`, `depth` those that were there at it, by
    state; an instant before the history began is in neither.
    """

    today: list[AgentDay]
    instants: range
    ended: dict[str, Line]
    depth: dict[str, Line]
    approvals: list[Row]


async def look(db: Database, calendar: Calendar) -> Overview:
    """How the platform stands."""
    return await db.read(lambda tx: _look(tx, calendar))


async def look_back(db: Database, calendar: Calendar) -> tuple[Overview, Past]:
    """How the platform stands, and its last hour and day, of one snapshot."""
    return await db.read(lambda tx: (_look(tx, calendar), _look_back(tx, calendar)))


def success_share(ended: dict[str, int]) -> float | None:
    """The share of the runs that succeeded among those that succeeded or failed; None where there were none."""
    succeeded, failed = ended.get(RunState.SUCCEEDED, 0), ended.get(RunState.FAILED, 0)
    return succeeded / (succeeded + failed) if succeeded + failed else None


def _look(tx: Transaction, calendar: Calendar) -> Overview:
    (day, month), blocked = budgets.overview_in(tx, calendar)
    return Overview(
        now=now(tx),
        queues=insights.queues_of(tx, counters.read(tx)),
        workers=workers.list_in(tx, limit=WORKERS_SHOWN),
        runs=tx.fetch_all("latest_runs", limit=RUNS_SHOWN),
        switches=switches.list_in(tx),
        day=day,
        month=month,
        blocked_runs=blocked,
        dead=dead.list_in(tx, DeadFilter(), limit=DEAD_COUNTED + 1),
        alerts=alerts.overview_in(tx),
    )


def _look_back(tx: Transaction, calendar: Calendar) -> Past:
    at = now(tx)
    until = -(-at // ALIGNED_US) * ALIGNED_US  # so that the latest sample is in it
    grid = {"since": until - HOUR_US, "until": until, "step": MINUTE_US}
    ended = _totals(tx, "runs_ended", grid)
    depth: dict[str, Line] = {name: _summed(_totals(tx, name, grid)) for name in DEPTHS}
    began = min((at for line in depth.values() for at in line), default=until)
    return Past(
        today=today_in(tx, calendar),
        instants=range(until - HOUR_US, until + 1, MINUTE_US),
        ended={state: _increases(line, began) for state, line in ended.items()},
        depth=depth,
        approvals=tx.fetch_all("pending_titles", limit=APPROVALS_COUNTED + 1),
    )


def _totals(tx: Transaction, name: str, grid: dict[str, int]) -> dict[str, Line]:
    lines: dict[str, Line] = defaultdict(dict)
    for row in tx.fetch_all("history_totals", name=name, is_counted=int(name in CUMULATIVE), **grid):
        lines[row["label"]][row["at"]] = row["value"]
    return lines


def _increases(line: Line, began: int) -> Line:
    """What was counted between each instant and the one before, since the history began."""
    steps = pairwise(sorted(line.items()))
    return {at: Span(before, after).increase for (_, before), (at, after) in steps if at >= began}


def _summed(lines: dict[str, Line]) -> Line:
    total: Counter[int] = Counter()
    for line in lines.values():
        total.update(line)
    return dict(total)


def today_in(tx: Transaction, calendar: Calendar) -> list[AgentDay]:
    """What each agent did since midnight, those that did anything."""
    at = now(tx)
    day = calendar.day(at)
    seconds = (at - calendar.bounds(day)[0]) / 1_000_000
    ended: dict[str, Counter[str]] = defaultdict(Counter)
    for key, span in history.spans_in(tx, "runs_ended", seconds=seconds).items():
        ended[key.agent][key.label] += span.increase
    costs: Counter[str] = Counter()
    for key, span in history.spans_in(tx, "cost_microusd", seconds=seconds).items():
        costs[key.agent] += span.increase
    known = budgets.limit_rows(tx)
    limits = {agent: _limit(known, agent, day) for agent in {*ended, *costs}}
    return [AgentDay(agent, dict(ended[agent]), costs[agent], limits[agent]) for agent in sorted(limits)]


def _limit(known: dict[budgets.Key, Row], agent: str, day: str) -> int | None:
    row = budgets.closest(known, f"agent:{agent}", day, Unit.MICROUSD)
    return None if row is None or row["amount"] is None else int(row["amount"])
