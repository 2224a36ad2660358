"""Alerts as people see them and act on them: list, acknowledge, silence, and what every rule measures now."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pilothouse.clock import new_id
from pilothouse.control import alerting, audit, baselines
from pilothouse.control.alert_notices import MAX_SILENCES, is_silenced, live_silences
from pilothouse.control.alert_readings import Scene, readings, worst
from pilothouse.control.views import view
from pilothouse.domain.alert_rules import NAMES
from pilothouse.domain.alerts import AlertRule, Matcher, Reading, Severity
from pilothouse.domain.calendars import Calendar
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

MAX_MINUTES = 60 * 24 * 30
TOP = 5


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts; None: any."""

    state: str | None = None
    severity: str | None = None
    rule: str | None = None
    agent: str | None = None


async def list_alerts(db: Database, wanted: AlertFilter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """Newest first, each with whether it `is_silenced`; `after` is the last id of the page before."""

    def work(tx: Transaction) -> list[Row]:
        rows = tx.fetch_all(
            "list_alerts",
            after=after,
            limit=limit,
            state=wanted.state,
            severity=wanted.severity,
            rule=wanted.rule,
            agent=wanted.agent,
        )
        return _shown(tx, rows)

    return await db.read(work)


async def live_alerts(db: Database, *, limit: int = 200) -> list[Row]:
    """Those that fire or are pending, the gravest first."""

    def work(tx: Transaction) -> list[Row]:
        rows = sorted(tx.fetch_all("live_alerts"), key=lambda row: (row["state"], -Severity(row["severity"]).rank))
        return _shown(tx, rows[:limit])

    return await db.read(work)


def _shown(tx: Transaction, rows: Sequence[Row]) -> list[Row]:
    silences = live_silences(tx)
    return [row | {"is_silenced": is_silenced(row, silences)} for row in rows]


def public(row: Row) -> dict[str, Any]:
    """An alert as users see it."""
    return {name: value for name, value in view(row).items() if name not in ("now", "met_at", "told_at")}


async def show_alert(db: Database, alert_id: str) -> dict[str, Any]:
    """One alert, who was told of it, and its audit. Raises NotFound."""

    def work(tx: Transaction) -> dict[str, Any]:
        (row,) = _shown(tx, [_find(tx, alert_id)])
        notices = tx.fetch_all("notices_of_alert", alert_id=alert_id)
        records = tx.fetch_all("audit_of_entity", entity_id=alert_id, after=0, limit=20)
        return public(row) | {
            "notices": [view(notice) for notice in notices],
            "audit": [view(record) for record in records],
        }

    return await db.read(work)


def _find(tx: Transaction, alert_id: str) -> Row:
    row = tx.fetch_one("alert_by_id", id=alert_id)
    if row is None:
        raise NotFound(f"there is no alert {alert_id}; `pilothouse alerts list --all` shows the latest")
    return row


def overview_in(tx: Transaction, *, top: int = TOP) -> dict[str, Any]:
    """How many alerts fire, by severity, and the gravest of them."""
    counts: Counter[str] = Counter()
    for row in tx.fetch_all("firing_counts"):
        counts[row["severity"]] += row["alerts"]
    rows = _shown(tx, tx.fetch_all("firing_alerts", limit=top))
    return {
        "firing": {str(severity): counts[severity] for severity in reversed(Severity)},
        "top": [public(row) for row in rows],
    }


async def acknowledge(db: Database, alert_id: str, *, principal: str, reason: str = "") -> dict[str, Any]:
    """Says that somebody looks after it: its start is told to nobody any more. Raises NotFound, Conflict."""

    def work(tx: Transaction) -> None:
        row = _find(tx, alert_id)
        if tx.fetch_one("acknowledge_alert", id=alert_id, acknowledged_by=principal) is None:
            who = row["acknowledged_by"]
            told = f"acknowledged already, by {who}" if who else f"{row['state']} already"
            raise Conflict(f"alert {alert_id} is {told}")
        entry = audit.entry("alert.acknowledged", "alert", alert_id, principal=principal, reason=reason or None)
        audit.record(tx, [entry])

    await db.transaction(work)
    return await show_alert(db, alert_id)


async def accept(db: Database, rule: str, agent: str, *, principal: str) -> None:
    """What an agent does now is usual from now on: its baseline is learned anew. Raises InvalidInput, NotFound."""
    measure = baselines.RULES.get(rule)
    if measure is None:
        told = f"is one of {', '.join(baselines.RULES)}"
        raise InvalidInput(f"there is nothing usual to rule {rule!r}; it {told}", [FieldError("rule", told)])

    def work(tx: Transaction) -> None:
        if not tx.execute("forget_baseline", agent=agent, measure=measure):
            raise NotFound(f"agent {agent!r} has no baseline for {rule} yet; `pilothouse alerts rules` shows evidence")
        reason = f"what {agent} does now is usual from now on"
        audit.record(tx, [audit.entry("alert.accepted", "rule", rule, principal=principal, reason=reason)])

    await db.transaction(work)


# --- silences ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SilenceOrder:
    """Who shall be told nothing for `minutes`: alerts whose rule, subject and agent match the patterns."""

    matcher: Matcher
    minutes: float
    reason: str


async def silence(db: Database, order: SilenceOrder, *, principal: str) -> Row:
    """Messages of matching alerts are not sent until it ends; they fire all the same. Raises InvalidInput."""
    _check(order)
    silence_id = new_id()

    def work(tx: Transaction) -> Row:
        matcher = {"rule": order.matcher.rule, "subject": order.matcher.subject, "agent": order.matcher.agent}
        length_us = round(order.minutes * 60_000_000)
        tx.execute(
            "insert_silence",
            id=silence_id,
            reason=order.reason,
            length_us=length_us,
            created_by=principal,
            **matcher,
        )
        _record(tx, "alert.silenced", silence_id, principal, order.reason)
        return _silence(tx, silence_id)

    return await db.transaction(work)


def _check(order: SilenceOrder) -> None:
    if not order.reason.strip():
        raise InvalidInput("reason is empty; say why in a sentence", [FieldError("reason", "must not be empty")])
    if not 0 < order.minutes <= MAX_MINUTES:
        told = f"must be more than 0 and at most {MAX_MINUTES}"
        raise InvalidInput(f"minutes is {order.minutes:g}; it {told}", [FieldError("minutes", told)])
    if not any(Matcher(rule=order.matcher.rule).covers(name, "", "") for name in NAMES):
        told = f"matches no rule; the rules are {', '.join(NAMES)}"
        raise InvalidInput(f"rule {order.matcher.rule!r} {told}", [FieldError("rule", told)])


async def list_silences(db: Database) -> list[Row]:
    """Those that hold now; the one that ends first comes first."""
    return await db.read(lambda tx: tx.fetch_all("live_silences", limit=MAX_SILENCES))


async def unsilence(db: Database, silence_id: str, *, principal: str) -> Row:
    """Ends a silence. Raises NotFound, Conflict where it has ended."""

    def work(tx: Transaction) -> Row:
        _silence(tx, silence_id)
        if tx.fetch_one("end_silence", id=silence_id, ended_by=principal) is None:
            raise Conflict(f"silence {silence_id} has ended already")
        _record(tx, "alert.unsilenced", silence_id, principal, None)
        return _silence(tx, silence_id)

    return await db.transaction(work)


def _silence(tx: Transaction, silence_id: str) -> Row:
    row = tx.fetch_one("silence_by_id", id=silence_id)
    if row is None:
        raise NotFound(f"there is no silence {silence_id}; `pilothouse alerts silences` shows those that hold")
    return row


def _record(tx: Transaction, action: str, silence_id: str, principal: str, reason: str | None) -> None:
    audit.record(tx, [audit.entry(action, "silence", silence_id, principal=principal, reason=reason)])


# --- rules -------------------------------------------------------------------------------------


async def standings(db: Database, rules: Sequence[AlertRule], calendar: Calendar) -> list[dict[str, Any]]:
    """Every rule with what it measures now: the value nearest to its threshold, and how many alerts are live."""
    scene = await alerting.look_around(db, calendar)
    return await db.read(partial(_standings, rules=rules, scene=scene))


def _standings(tx: Transaction, rules: Sequence[AlertRule], scene: Scene) -> list[dict[str, Any]]:
    live = Counter((row["rule"], row["state"]) for row in tx.fetch_all("live_alerts"))
    found: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings(tx, scene):
        found[reading.rule].append(reading)
    return [_standing(rule, found[rule.name], live) for rule in rules]


def _standing(rule: AlertRule, found: list[Reading], live: Counter[tuple[str, str]]) -> dict[str, Any]:
    nearest = worst(found, fires_below=rule.fires_below)
    firing, pending = live[rule.name, "firing"], live[rule.name, "pending"]
    state = "off" if not rule.is_enabled else "firing" if firing else "pending" if pending else "well"
    return {
        "rule": rule.name,
        "severity": rule.severity,
        "measures": rule.measures,
        "threshold": rule.threshold,
        "fires_below": rule.fires_below,
        "unit": rule.unit,
        "for_seconds": rule.for_seconds,
        "keep_seconds": rule.keep_seconds,
        "runbook": rule.runbook,
        "state": state,
        "firing": firing,
        "pending": pending,
        "value": None if nearest is None else nearest.value,
        "subject": None if nearest is None else nearest.subject,
    }
