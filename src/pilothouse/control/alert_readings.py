"""What the rules of alerts measure, from counters, partial indexes and the history; never by counting the run log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pilothouse import payloads
from pilothouse.clock import isoformat
from pilothouse.control import baselines, budgets, counters, history, insights, leases
from pilothouse.control.instants import now
from pilothouse.domain.alert_rules import WINDOW_SECONDS, queue_advice
from pilothouse.domain.alerts import Reading
from pilothouse.domain.autonomy import lower_bound
from pilothouse.domain.breakers import BreakerState
from pilothouse.domain.budgets import Standing
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import Unit, show_amount
from pilothouse.domain.runs import RunState
from pilothouse.domain.words import counted
from pilothouse.store.database import Transaction

CONFIDENCE = 0.99
HOUR_SECONDS = 3_600
WINDOW_US = WINDOW_SECONDS * 1_000_000
WORKERS_TOLD = 50
ENTRIES_LOOKED_AT = 2_000
COUNTED_AT_MOST = 10_000
LATE_LEASE_US = 5_000_000
OLD_LEASE_SECONDS = 86_400.0
"""A chore whose lease ran out so long ago is one that no scheduler knows any more."""

BURN_FROM, FORECAST_FROM = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """What the rules need that is not in the database. `free_share` is that of the disk of `folder`."""

    calendar: Calendar
    folder: str = "."
    free_share: float | None = None
    latency_seconds: float = 0.0
    outage_seconds: float = 0.0
    skew_seconds: float = 0.0


def readings(tx: Transaction, scene: Scene) -> list[Reading]:
    """Everything that the rules measure, whether it is well or not."""
    return [reading for measure in MEASURES for reading in measure(tx, scene)]


# --- queues, runs and workers ------------------------------------------------------------------


def _queues(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for queue in insights.queues_of(tx, counters.read(tx)):
        depth, age = queue.runs.get(RunState.QUEUED, 0), queue.oldest_age_seconds
        subject = f"agent:{queue.agent}/lane:{queue.lane}"
        look = f"`pilothouse runs list --agent {queue.agent} --state queued`"
        told = f"the oldest due run of {queue.agent} in lane {queue.lane} has waited {age:,.0f} s; {look}"
        yield Reading("queue-age", subject, age, told, queue.agent)
        told = f"{counted(depth, 'queued run')} of {queue.agent} in lane {queue.lane}: {queue_advice(depth)}; {look}"
        yield Reading("queue-depth", subject, float(depth if age > 0 else 0), told, queue.agent)


def _slots(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    total = sum(sum(payloads.decode(row["slots"]).values()) for row in tx.fetch_all("live_slots"))
    if not total:
        return
    running = sum(row["value"] for row in counters.read(tx, "runs") if row["label"] == RunState.RUNNING)
    told = (
        f"{running:,} of {total:,} slots are taken, {running / total:.0%}: warned of from 80 % on; add workers with "
        "`pilothouse worker`, or slots with --lanes; `pilothouse workers list`"
    )
    yield Reading("slots-used", "workers", running / total, told)


def _failures(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    ended: dict[str, dict[str, int]] = defaultdict(dict)
    for key, span in history.spans_in(tx, "runs_ended", seconds=WINDOW_SECONDS).items():
        ended[key.agent][key.label] = ended[key.agent].get(key.label, 0) + span.increase
    for agent, by_state in sorted(ended.items()):
        failed = by_state.get(RunState.FAILED, 0)
        total = failed + by_state.get(RunState.SUCCEEDED, 0)
        bound = lower_bound(failed, total, confidence=CONFIDENCE) if total else 0.0
        told = (
            f"{failed:,} of {counted(total, 'run')} of {agent} failed in the last 15 min: at least {bound:.0%} "
            f"with 99 % confidence; `pilothouse runs list --agent {agent} --state failed`"
        )
        yield Reading("failure-rate", f"agent:{agent}", bound, told, agent)


def _tool_failures(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    calls: dict[str, dict[str, int]] = defaultdict(dict)
    for key, span in history.spans_in(tx, "tool_calls", seconds=WINDOW_SECONDS).items():
        tool, _, outcome = key.label.rpartition("/")
        calls[tool][outcome] = calls[tool].get(outcome, 0) + span.increase
    for tool, by_outcome in sorted(calls.items()):
        failed, total = by_outcome.get("failed", 0), sum(by_outcome.values())
        bound = lower_bound(failed, total, confidence=CONFIDENCE) if total else 0.0
        told = (
            f"{failed:,} of {counted(total, 'call')} of tool {tool} failed in the last 15 min: at least {bound:.0%} "
            f"with 99 % confidence; `pilothouse switch trip tool:{tool}` holds its calls"
        )
        yield Reading("tool-failure-rate", f"tool:{tool}", bound, told)


def _lost(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    by_agent: dict[str, int] = defaultdict(int)
    for key, span in history.spans_in(tx, "attempts", seconds=WINDOW_SECONDS).items():
        by_agent[key.agent] += span.increase if key.label == "lost" else 0
    for agent, lost in sorted(by_agent.items()):
        told = f"{counted(lost, 'attempt')} of {agent} lost with a worker in the last 15 min; `pilothouse workers list`"
        yield Reading("attempts-lost", f"agent:{agent}", float(lost), told, agent)


def _dead(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    failed: dict[str, int] = defaultdict(int)
    for row in counters.read(tx, "runs"):
        failed[row["agent"]] += row["value"] if row["label"] == RunState.FAILED else 0
    grown: dict[str, int] = defaultdict(int)
    for key, span in history.spans_in(tx, "runs_ended", seconds=HOUR_SECONDS).items():
        grown[key.agent] += span.increase if key.label == RunState.FAILED else 0
    for agent, new in sorted(grown.items()):
        more = min(new, failed[agent])  # those that were redriven are no dead letters any more
        told = f"{counted(more, 'new dead letter')} of {agent} in the last hour; `pilothouse dead list --agent {agent}`"
        yield Reading("dead-letters-growing", f"agent:{agent}", float(more), told, agent)


def _workers(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    at = now(tx)
    rows = tx.fetch_all("lost_workers", since=at - WINDOW_US, limit=WORKERS_TOLD)
    rows += tx.fetch_all("late_workers", until=at - LATE_LEASE_US, limit=WORKERS_TOLD)
    for row in rows:
        told = (
            f"worker {row['id']} ({row['host']}, process {row['pid']}) fell silent: its lease ran out at "
            f"{isoformat(row['lease_until'])} and it had not stopped; its runs are given to others; "
            "`pilothouse workers list`"
        )
        yield Reading("worker-silent", f"worker:{row['id']}", _since(row["lease_until"], at), told)


def _breakers(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("list_breakers"):
        if row["state"] == BreakerState.CLOSED:
            continue
        look = "`pilothouse runbook show dependency-down`"
        told = f"the breaker of {row['name']} is {row['state']}: {row['reason']}; {look}"
        yield Reading("breaker-open", f"dependency:{row['name']}", _since(row["changed_at"], row["now"]), told)


def _since(instant: int, at: int) -> float:
    return max(0.0, (at - instant) / 1_000_000)


# --- money -------------------------------------------------------------------------------------


def _budgets(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    at = now(tx)
    for budget in budgets.budgets_in(tx, scene.calendar, with_users=False):
        standing = budget.standing
        if standing.limit is not None and standing.begins_at and not standing.account.startswith("user:"):
            yield from _standing(standing, at)


def _standing(standing: Standing, at: int) -> Iterator[Reading]:
    kind, _, name = standing.account.partition(":")
    subject = f"{standing.account}/{standing.period}/{standing.unit}"
    whose = {"agent": name if kind == "agent" else "", "tenant": name if kind == "tenant" else ""}
    share = standing.used_share
    told = f"{_used_of(standing)} used for {standing.account} in {standing.period}, {share:.0%}"
    raise_it = f"`pilothouse budget set {standing.account} …` gives more, `pilothouse budget list` shows all"
    if standing.unit is Unit.ACTIONS:
        yield Reading("action-cap-reached", subject, share, f"ACTION_CAP_REACHED: {told}; {raise_it}", **whose)
    else:
        yield Reading(
            "budget-exhausted", subject, share, f"{told}: what spends waits or is refused; {raise_it}", **whose
        )
    if share >= BURN_FROM:
        ahead = share / _elapsed_share(standing, at)
        text = f"{told}, {ahead:.1f} times as much as the time gone; {raise_it}"
        yield Reading("budget-burn", subject, ahead, text, **whose)
    exhausted_at = standing.exhausted_at(at)
    if exhausted_at is not None and share >= FORECAST_FROM and standing.free:
        text = f"{told}; at this rate nothing is left at {isoformat(exhausted_at)}; {raise_it}"
        yield Reading("budget-forecast", subject, _since(at, exhausted_at), text, **whose)


def _used_of(standing: Standing) -> str:
    used = show_amount(standing.used, standing.unit) if standing.unit is Unit.MICROUSD else f"{standing.used:,}"
    return f"{used} of {show_amount(standing.limit or 0, standing.unit)}"


def _elapsed_share(standing: Standing, at: int) -> float:
    begins_at, ends_at = standing.begins_at or at, standing.ends_at or at
    return max(1e-3, (at - begins_at) / max(1, ends_at - begins_at))


def _overruns(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    since = now(tx) - WINDOW_US
    for row in tx.fetch_all("late_overruns", since=since, limit=ENTRIES_LOOKED_AT):
        beyond = show_amount(max(0, row["beyond_microusd"]), Unit.MICROUSD)
        told = (
            f"{counted(row['calls'], 'call')} of {row['agent']} in the last 15 min used more than was reserved, "
            f"{beyond} in money; `pilothouse budget explain {row['run_id']}`"
        )
        yield Reading("limit-overrun", f"agent:{row['agent']}", float(row["calls"]), told, row["agent"])


# --- people, effects and safety ----------------------------------------------------------------


def _approvals(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("pending_by_agent", most=COUNTED_AT_MOST):
        agent, subject = row["agent"], f"agent:{row['agent']}"
        look = f"`pilothouse approvals list --agent {agent}`"
        waited, waiting = _since(row["oldest"], row["now"]), counted(row["approvals"], "waiting approval")
        told = f"{waiting} of {agent}, the oldest for {waited / 60:,.0f} min; {look}"
        yield Reading("approvals-waiting", subject, waited, told, agent)
        if row["next_deadline"] is not None:
            left = _since(row["now"], row["next_deadline"])
            told = f"the next deadline of {waiting} of {agent} is in {left / 60:,.0f} min; {look}"
            yield Reading("approval-deadline", subject, left, told, agent)


def _unknown(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("unknown_by_tool", most=COUNTED_AT_MOST):
        told = (
            f"nobody knows what became of {counted(row['effects'], 'call')} of tool {row['tool']}, the oldest of "
            f"{isoformat(row['oldest'])}; `pilothouse effects show {row['id']}`"
        )
        yield Reading("effects-unknown", f"tool:{row['tool']}", float(row["effects"]), told)


def _runaways(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("runaways_by_agent"):
        told = (
            f"{counted(row['halted'], 'halted run')} of {row['agent']} may have run away; "
            f"`pilothouse runs why {row['run_id']}`"
        )
        yield Reading("runaway-suspected", f"agent:{row['agent']}", float(row["halted"]), told, row["agent"])


def _calibration(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("uncalibrated"):
        error, agent = float(row["error"] or 0.0), row["agent"]
        told = f"the confidence that {agent} states is {error:.0%} off; `pilothouse agents calibration {agent}`"
        yield Reading("calibration-off", f"agent:{agent}", error, told, agent)


def _incidents(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for row in tx.fetch_all("incidents_by_agent"):
        look = f"`pilothouse incident show {row['id']}`"
        told = f"{counted(row['incidents'], 'open critical incident')} of {row['agent']}; {look}"
        yield Reading("incident-open", f"agent:{row['agent']}", float(row["incidents"]), told, row["agent"])


def _switches(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    at = now(tx)
    for row in tx.fetch_all("list_switches"):
        scope = str(row["scope"])
        kind, _, name = scope.partition(":")
        why = f": {row['reason']}" if row["reason"] else ""
        told = (
            f"switch {scope} is tripped ({row['mode']}) by {row['tripped_by']}{why}; `pilothouse switch reset {scope}`"
        )
        whose = {"agent": name if kind == "agent" else "", "tenant": name if kind == "tenant" else ""}
        yield Reading("switch-tripped", f"switch:{scope}", _since(row["tripped_at"], at), told, **whose)


def _drift(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    yield from baselines.readings_in(tx)


# --- the platform itself -----------------------------------------------------------------------


def _seal(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    row = tx.fetch_one("oldest_unsealed")
    late = 0.0 if row is None else _since(row["at"], row["now"])
    told = (
        f"the oldest audit record without a seal is {late:,.0f} s old; is a scheduler alive? `pilothouse audit verify`"
    )
    yield Reading("audit-seal-late", "audit", late, told)


def _chores(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    for turn in leases.turns_in(tx):
        late = turn.late_seconds
        if late > OLD_LEASE_SECONDS:
            continue
        told = f"nobody has led the chore {turn.chore} for {late:,.0f} s; look at the log of `pilothouse scheduler`"
        yield Reading("chore-late", f"chore:{turn.chore}", late, told)


def _surroundings(tx: Transaction, scene: Scene) -> Iterator[Reading]:
    if scene.free_share is not None:
        look = "`pilothouse db storage` says what takes the room"
        told = f"{scene.free_share:.0%} of the disk of {scene.folder} is free; {look}"
        yield Reading("disk-low", f"disk:{scene.folder}", scene.free_share, told)
    told = (
        f"the database took {scene.latency_seconds:.2f} s for the simplest question; `pilothouse runbook show database`"
    )
    yield Reading("database-slow", "database", scene.latency_seconds, told)
    told = f"the database gave no answer for {scene.outage_seconds:,.0f} s; it answers again"
    yield Reading("database-unreachable", "database", scene.outage_seconds, told)
    told = f"the clock of the scheduler is {scene.skew_seconds:.1f} s from that of the database; look at NTP on both"
    yield Reading("clock-skew", "clock", scene.skew_seconds, told)


MEASURES: tuple[Callable[[Transaction, Scene], Iterator[Reading]], ...] = (
    _queues,
    _slots,
    _failures,
    _tool_failures,
    _lost,
    _dead,
    _workers,
    _breakers,
    _budgets,
    _overruns,
    _approvals,
    _unknown,
    _runaways,
    _calibration,
    _incidents,
    _switches,
    _drift,
    _seal,
    _chores,
    _surroundings,
)


def worst(found: list[Reading], *, fires_below: bool) -> Reading | None:
    """The one that is nearest to firing, or farthest beyond."""
    if not found:
        return None
    return min(found, key=_value) if fires_below else max(found, key=_value)


def _value(reading: Reading) -> float:
    return reading.value
