"""The figures of `/metrics`, in one read: from counters, the history and small indexes, never from the run log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pilothouse import __version__, payloads
from pilothouse.control import breakers, budgets, counters, history, insights, leases
from pilothouse.control.agents import WORKFLOW
from pilothouse.control.insights import QueueInsight
from pilothouse.domain import alert_rules
from pilothouse.domain.breakers import BreakerState
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.history import SeriesKey, Span
from pilothouse.domain.limits import EACH, Period, Pocket, Unit
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database, PoolUse, Row, Transaction
from pilothouse.telemetry.catalogue import HOUR_SECONDS, RECENT_SECONDS
from pilothouse.telemetry.metrics import Figures, Sample, Timed

OPEN_STATES = (RunState.QUEUED, RunState.WAITING, RunState.RUNNING)
BREAKER_VALUES = {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 2}
COUNTED_AT_MOST = 10_000
MICRO = 1_000_000

Found = dict[str, list[Sample | Timed]]


async def read_figures(db: Database, calendar: Calendar) -> Figures:
    """Every figure of the catalogue that the database knows, and how busy this process keeps it. One transaction."""
    figures = await db.read(partial(_figures, calendar=calendar))
    return {**figures, **_pool(db.pool_use()), "pilothouse_build_info": [Sample((__version__, db.dialect), 1)]}


def _figures(tx: Transaction, calendar: Calendar) -> Found:
    rows = counters.read(tx)
    versions = tx.fetch_all("agent_versions")
    queues = insights.queues_of(tx, rows)
    workflows = {row["name"] for row in versions if row["definition"] == WORKFLOW}
    parts = (
        _queues(queues, workflows),
        _counted(rows),
        _recent(tx),
        _breakers(tx, rows),
        _workers(tx, sum(queue.runs.get(RunState.RUNNING, 0) for queue in queues)),
        _versions(versions),
        _backlogs(tx),
        _alerts(tx),
        _budgets(tx, calendar),
    )
    return {name: samples for part in parts for name, samples in part.items()}


def _pool(use: PoolUse) -> Found:
    told = {"db_pool_size": use.size, "db_pool_in_use": use.in_use, "db_pool_waiting": use.waiting}
    return {name: [Sample((), value)] for name, value in told.items()}


# --- the queue ---------------------------------------------------------------------------------


def _queues(queues: Sequence[QueueInsight], workflows: set[str]) -> Found:
    found: Found = defaultdict(list)
    for queue in queues:
        place = (queue.agent, queue.lane)
        for state in OPEN_STATES:
            found["pilothouse_queue_depth"].append(Sample((*place, state), queue.runs.get(state, 0)))
        found["pilothouse_queue_oldest_age_seconds"].append(Sample(place, queue.oldest_age_seconds))
        for outcome, count in sorted(queue.attempts.items()):
            found["pilothouse_attempts_total"].append(Sample((*place, outcome), count))
    for agent in sorted({queue.agent for queue in queues}):
        own = [queue for queue in queues if queue.agent == agent]
        found["agent_queue_size"].append(Sample((agent,), sum(q.runs.get(RunState.QUEUED, 0) for q in own)))
        buckets: Counter[str] = Counter()
        for queue in own:
            buckets.update(queue.duration_buckets)
        timed = Timed((agent,), buckets, sum(queue.duration_seconds_sum for queue in own))
        found["agent_task_duration_seconds"].append(timed)
        if agent in workflows:
            found["workflow_duration_seconds"].append(timed)
        for state in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED):
            found["agent_tasks_total"].append(Sample((agent, state), sum(q.ended.get(state, 0) for q in own)))
    return found


# --- what is counted over time -----------------------------------------------------------------


class _Counter(NamedTuple):
    """How a counter of the database becomes samples: its metric, the labels that agent and label make, its scale."""

    metric: str
    labels: Callable[[str, str], tuple[str, ...]]
    scale: float = 1


def _split_last(agent: str, label: str) -> tuple[str, ...]:
    name, _, outcome = label.rpartition("/")
    return agent, name, outcome


def _split_first(agent: str, label: str) -> tuple[str, ...]:
    kind, _, name = label.partition("/")
    return agent, kind, name


COUNTERS = {
    "cost_microusd": _Counter("pilothouse_cost_usd_total", _split_first, MICRO),
    "model_calls": _Counter("pilothouse_model_calls_total", _split_last),
    "model_us": _Counter("pilothouse_model_seconds_total", lambda agent, label: (agent, label), MICRO),
    "routing": _Counter("routing_decisions_total", lambda agent, label: _split_last(agent, label)[1:]),
    "runs_asked": _Counter("pilothouse_runs_asked_total", lambda agent, label: (agent,)),
    "runs_failed": _Counter("pilothouse_failures_total", lambda agent, label: (agent, label)),
    "tokens": _Counter("pilothouse_tokens_total", lambda agent, label: (agent, label)),
    "tool_calls": _Counter("pilothouse_tool_calls_total", _split_last),
    "tool_us": _Counter("pilothouse_tool_seconds_total", lambda agent, label: (agent, label), MICRO),
}


def _counted(rows: Iterable[Row]) -> Found:
    sums: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for row in rows:
        if known := COUNTERS.get(row["name"]):
            sums[row["name"]][known.labels(row["agent"], row["label"])] += row["value"]
    found: Found = {
        COUNTERS[name].metric: [
            Sample(labels, value / COUNTERS[name].scale) for labels, value in sorted(counts.items())
        ]
        for name, counts in sums.items()
    }
    models = sums["cost_microusd"].items()
    found["llm_cost_usd"] = [
        Sample((agent, name), value / MICRO) for (agent, kind, name), value in sorted(models) if kind == "model"
    ]
    return found


def _recent(tx: Transaction) -> Found:
    """Rates and shares, of what the history says."""
    recent = _by_agent(history.spans_in(tx, "runs_ended", seconds=RECENT_SECONDS))
    hour = _by_agent(history.spans_in(tx, "runs_ended", seconds=HOUR_SECONDS))
    asked = _by_agent(history.spans_in(tx, "runs_asked", seconds=HOUR_SECONDS))
    cost = _by_agent(history.spans_in(tx, "cost_microusd", seconds=HOUR_SECONDS))
    found: Found = defaultdict(list)
    for agent, ends in sorted(recent.items()):
        per_minute = sum(ends.values()) * 60 / RECENT_SECONDS
        found["pilothouse_runs_ended_per_minute"].append(Sample((agent,), per_minute))
        if judged := ends["succeeded"] + ends["failed"]:
            found["error_rate"].append(Sample((agent,), ends["failed"] / judged))
    for agent, ends in sorted(hour.items()):
        ended = sum(ends.values())
        if judged := ends["succeeded"] + ends["failed"]:
            found["pilothouse_completion_ratio"].append(Sample((agent,), ends["succeeded"] / judged))
        if ended:
            found["pilothouse_escalation_ratio"].append(Sample((agent,), sum(asked[agent].values()) / ended))
            per_run = sum(cost[agent].values()) / MICRO / ended
            found["pilothouse_cost_usd_per_run"].append(Sample((agent,), per_run))
    return found


def _by_agent(spans: Mapping[SeriesKey, Span]) -> dict[str, Counter[str]]:
    """What was counted, by agent and label."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for key, span in spans.items():
        found[key.agent][key.label] += span.increase
    return found


# --- dependencies and processes ----------------------------------------------------------------


def _breakers(tx: Transaction, rows: Iterable[Row]) -> Found:
    """The state of each breaker, for itself and for each agent that has called what is behind it."""
    users: dict[str, set[str]] = defaultdict(set)
    for name, agent in breakers.uses_in(rows):
        users[name].add(agent)
    samples: list[Sample | Timed] = []
    for row in breakers.list_in(tx):
        value = BREAKER_VALUES[BreakerState(row["state"])]
        samples += [Sample((row["name"], agent), value) for agent in ("", *sorted(users[row["name"]]))]
    return {"circuit_breaker_state": samples}


def _workers(tx: Transaction, running: int) -> Found:
    rows = tx.fetch_all("leased_workers")
    states = Counter(row["state"] for row in rows)
    takers = [row for row in rows if row["state"] == "running" and row["is_enabled"]]
    slots = sum(sum(payloads.decode(row["slots"]).values()) for row in takers)
    found: Found = {
        "pilothouse_workers": [Sample((state,), states[state]) for state in history.WORKER_STATES],
        "pilothouse_worker_slots": [Sample((), slots)],
        "pilothouse_chore_age_seconds": [
            Sample((turn.chore,), turn.age_seconds) for turn in leases.turns_in(tx) if turn.age_seconds is not None
        ],
    }
    if slots:
        found["pilothouse_worker_utilization_ratio"] = [Sample((), running / slots)]
    if rows:
        oldest = max(row["now"] - row["renewed_at"] for row in rows)
        found["pilothouse_worker_renewal_age_seconds"] = [Sample((), max(0, oldest) / MICRO)]
    return found


def _versions(rows: Iterable[Row]) -> Found:
    found: Found = defaultdict(list)
    for row in rows:
        labels = (row["name"], row["app"], row["fingerprint"], str(row["state_version"]))
        found["pilothouse_agent_info"].append(Sample(labels, 1))
        age = max(0, row["now"] - row["registered_at"]) / MICRO
        found["pilothouse_agent_version_age_seconds"].append(Sample((row["name"],), age))
    return found


# --- what waits, and what is spent -------------------------------------------------------------


def _backlogs(tx: Transaction) -> Found:
    row = tx.fetch_one("backlogs", most=COUNTED_AT_MOST)
    assert row is not None
    told = {
        "pilothouse_approvals_pending": row["approvals"],
        "pilothouse_effects_unknown": row["effects"],
        "pilothouse_dead_letters": row["dead"],
        "pilothouse_switches_tripped": row["switches"],
        "pilothouse_audit_seal_lag_seconds": max(0, row["now"] - (row["unsealed_at"] or row["now"])) / MICRO,
    }
    if row["next_deadline"] is not None:
        told["pilothouse_approvals_next_deadline_seconds"] = (row["next_deadline"] - row["now"]) / MICRO
    return {name: [Sample((), value)] for name, value in told.items()}


def _alerts(tx: Transaction) -> Found:
    """Of every rule, also where nothing fires, so that a chart has a line and not a gap."""
    firing: Counter[str] = Counter()
    for row in tx.fetch_all("firing_counts"):
        firing[row["rule"]] += row["alerts"]
    return {"pilothouse_alerts_firing": [Sample((rule,), firing[rule]) for rule in alert_rules.NAMES]}


def _budgets(tx: Transaction, calendar: Calendar) -> Found:
    """Limits of days and months for one account each, and what is kept of it. Those for each of a kind are left out:
    there may be any number of tenants and users.
    """
    known = {key: row for key, row in budgets.limit_rows(tx).items() if _is_told(key)}
    pockets = {key: Pocket(key[0], budgets.period_of(tx, key[1], calendar)) for key in known}
    balances = budgets.kept_balances(tx, pockets.values())
    found: Found = defaultdict(list)
    for key, row in sorted(known.items()):
        pocket, unit = pockets[key], key[2]
        labels, scale = (key[0], key[1], "usd" if unit is Unit.MICROUSD else unit), _scale(unit)
        if row["amount"] is not None:
            found["pilothouse_budget_limit"].append(Sample(labels, row["amount"] / scale))
        if balance := balances.get(pocket):
            found["pilothouse_budget_used"].append(Sample(labels, balance.settled.of(unit) / scale))
            found["pilothouse_budget_reserved"].append(Sample(labels, balance.reserved.of(unit) / scale))
    return found


def _is_told(key: budgets.Key) -> bool:
    scope, period, _ = key
    return period is not Period.RUN and not scope.endswith(f":{EACH}")


def _scale(unit: Unit) -> int:
    return MICRO if unit is Unit.MICROUSD else 1
