"""Agents as people look at them: what each has to do, how it does today, and what keeps it from more."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from pilothouse import payloads
from pilothouse.control import (
    agents,
    autonomy,
    breakers,
    budgets,
    counters,
    insights,
    overview,
    readiness,
    run_lists,
    stability,
    switches,
    workers,
)
from pilothouse.control.budgets import Budget
from pilothouse.control.calibration import show_calibration
from pilothouse.control.instants import now
from pilothouse.control.overview import AgentDay
from pilothouse.domain.autonomy import Level
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.errors import NotFound
from pilothouse.store.database import Database, Row, Transaction

RUNS_LOOKED_AT = 200
"""The latest runs of an agent, which its latencies and versions are measured on."""

WORKERS_LOOKED_AT = 100
STATES = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


@dataclass(frozen=True, slots=True)
class AgentNow:
    """An agent as it stands. `agent` is its definition, `runs` are those that have not ended, by state.

    `workers` are the live ones that run it, `switch` the tripped one that stops it, `breakers` those of what it has
    called that are not closed.
    """

    agent: Row
    runs: dict[str, int]
    oldest_age_seconds: float
    day: AgentDay
    workers: int
    switch: Row | None
    breakers: list[Row]


@dataclass(frozen=True, slots=True)
class Version:
    """What the latest runs of an agent show of one version. `last_at` is in microseconds."""

    fingerprint: str
    runs: int
    ended: dict[str, int]
    last_at: int

    @property
    def success_share(self) -> float | None:
        return overview.success_share(self.ended)


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """One agent with all that is known of it. `p50` and `p95` are seconds from the first claim of a run to its end, of
    the `measured` latest runs that have ended; None where there are none.
    """

    now: int
    standing: AgentNow
    measured: int
    p50: float | None
    p95: float | None
    versions: list[Version]
    levels: list[dict[str, Any]]
    calibration: dict[str, Any]
    breakers: list[Row]
    budgets: list[Budget]
    plan: dict[str, Any] | None


async def look(db: Database, calendar: Calendar) -> list[AgentNow]:
    """All agents by name, of one snapshot."""
    return await db.read(lambda tx: _standings(tx, agents.list_in(tx), calendar))


async def look_at(db: Database, name: str, calendar: Calendar, *, default: Level, threshold: float) -> AgentSeen:
    """One agent. `default` is the level of new agents, `threshold` the confidence that suffices to act alone; both are
    settings. Raises NotFound.
    """

    def work(tx: Transaction) -> tuple[int, AgentNow, list[Row], list[Budget]]:
        (standing,) = _standings(tx, [agents.agent_in(tx, name)], calendar)
        used = {breaker for breaker, agent in breakers.uses_in(counters.read(tx)) if agent == name}
        known = [row for row in breakers.list_in(tx) if row["name"] in used]
        found = budgets.budgets_in(tx, calendar, with_users=False)
        return now(tx), standing, known, [each for each in found if each.scope in _scopes(name, each)]

    at, standing, known, limits = await db.read(work)
    page = await run_lists.list_runs(db, run_lists.Filter(agent=name), limit=RUNS_LOOKED_AT)
    took = sorted(_seconds(row) for row in page.rows if row["state"] in TERMINAL and row["started_at"] is not None)
    return AgentSeen(
        now=at,
        standing=standing,
        measured=len(took),
        p50=_rank(took, 0.5),
        p95=_rank(took, 0.95),
        versions=_versions(page.rows),
        levels=await autonomy.list_autonomy(db, name, default=default),
        calibration=await show_calibration(db, name, threshold=threshold),
        breakers=known,
        budgets=limits,
        plan=await _plan(db, name),
    )


def _scopes(name: str, budget: Budget) -> tuple[str, ...]:
    """The scopes of the limits that are for an agent; one for each agent counts where it is this one's account."""
    own = budget.standing.account == f"agent:{name}"
    return (f"agent:{name}", f"run@{name}", *(("agent:*",) if own else ()))


async def _plan(db: Database, name: str) -> dict[str, Any] | None:
    try:
        return await stability.show_plan(db, name)
    except NotFound:
        return None


# --- how agents stand --------------------------------------------------------------------------


def _standings(tx: Transaction, rows: Sequence[Row], calendar: Calendar) -> list[AgentNow]:
    counted = counters.read(tx)
    queues: dict[str, list[insights.QueueInsight]] = defaultdict(list)
    for queue in insights.queues_of(tx, counted):
        queues[queue.agent].append(queue)
    days = {day.agent: day for day in overview.today_in(tx, calendar)}
    tripped = {row["scope"]: row for row in switches.list_in(tx)}
    served, resting = _served(tx), _resting(tx, counted)
    return [
        AgentNow(
            agent=row,
            runs={state: sum(queue.runs.get(state, 0) for queue in queues[row["name"]]) for state in STATES},
            oldest_age_seconds=max((queue.oldest_age_seconds for queue in queues[row["name"]]), default=0.0),
            day=days.get(row["name"]) or AgentDay(row["name"], {}, 0, None),
            workers=served[row["name"]],
            switch=_switch(tripped, row),
            breakers=resting[row["name"]],
        )
        for row in rows
    ]


def _served(tx: Transaction) -> Counter[str]:
    """How many live workers run each agent."""
    live = [row for row in workers.list_in(tx, limit=WORKERS_LOOKED_AT) if readiness.is_live(row)]
    return Counter(name for row in live for name in set(payloads.decode(row["agents"])))


def _resting(tx: Transaction, counted: Iterable[Row]) -> dict[str, list[Row]]:
    """The breakers that are not closed, by the agents that have called what is behind them."""
    known = {row["name"]: row for row in breakers.list_in(tx) if row["state"] != "closed"}
    found: dict[str, list[Row]] = defaultdict(list)
    for name, agent in sorted(set(breakers.uses_in(counted))):
        if name in known:
            found[agent].append(known[name])
    return found


def _switch(tripped: Mapping[str, Row], agent: Row) -> Row | None:
    """The tripped switch that stops an agent, the closest first."""
    scopes = (f"agent:{agent['name']}", f"version:{agent['fingerprint']}", f"lane:{agent['lane']}", "global")
    return next((tripped[scope] for scope in scopes if scope in tripped), None)


# --- what its latest runs show -----------------------------------------------------------------


def _seconds(run: Row) -> float:
    return max(0, int(run["finished_at"]) - int(run["started_at"])) / 1_000_000


def _rank(values: Sequence[float], share: float) -> float | None:
    """The least of some sorted values that so large a share of them does not exceed."""
    return values[ceil(share * len(values)) - 1] if values else None


def _versions(rows: Iterable[Row]) -> list[Version]:
    """The latest first."""
    by_version: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["fingerprint"]:
            by_version[row["fingerprint"]].append(row)
    return [
        Version(
            fingerprint,
            len(own),
            dict(Counter(row["state"] for row in own if row["state"] in TERMINAL)),
            max(row["created_at"] for row in own),
        )
        for fingerprint, own in by_version.items()
    ]
