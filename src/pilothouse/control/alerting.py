"""Alerting: the chore that holds what is measured against the rules, and has people told of what changes.

A change of state, its audit record and the messages that it needs are one transaction. A message is a run of the
notifying agent, so that a crash between the change and its delivery neither loses nor repeats it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pilothouse.clock import new_id
from pilothouse.control import alert_notices, audit, autonomy, baselines
from pilothouse.control.alert_notices import PRINCIPAL, Delivery
from pilothouse.control.alert_readings import Scene, readings
from pilothouse.control.instants import now
from pilothouse.control.runs import WAKE_RUNS
from pilothouse.domain.alerts import (
    FLAP_US,
    AlertRule,
    AlertState,
    Episode,
    Reading,
    advance,
)
from pilothouse.domain.autonomy import Level
from pilothouse.domain.calendars import Calendar
from pilothouse.store.database import Database, Row, Transaction
from pilothouse.telemetry.events import AlertFired, AlertResolved, Emitter

PRUNE_SECONDS = 3_600.0
PRUNED_AT_ONCE = 1_000
FLAPS_COUNTED = 10_000
SLACK_SECONDS = 0.5
"""How far clocks may seem apart by the time that a question takes on its way."""

Key = tuple[str, str]
"""Rule and subject."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look came to: the readings that may matter, and blocks that baselines have to learn."""

    readings: Sequence[Reading]
    learned: Sequence[Row]
    is_idle: bool


@dataclass(slots=True)
class Alerting:
    """Evaluates the rules, which `rules` are; `keep_us` is how long what is resolved is kept, None for ever.
    `level` is the setting's for new agents and new versions.
    """

    db: Database
    rules: Sequence[AlertRule]
    calendar: Calendar
    delivery: Delivery
    emitter: Emitter
    keep_us: int | None = None
    level: Level = Level.ASSISTED
    _away_since: float | None = field(default=None, init=False)
    _pruned_at: float = field(default=float("-inf"), init=False)

    def away(self) -> None:
        """The database gives no answer."""
        if self._away_since is None:
            self._away_since = self.db.clock.monotonic()

    async def evaluate(self) -> None:
        """One look at everything, and what follows from it."""
        scene = await look_around(self.db, self.calendar, outage_seconds=self._outage())
        found = await self.db.read(partial(_find, rules=self.rules, scene=scene))
        self._away_since = None
        if not found.is_idle:
            await self._act(found)
        if self.db.clock.monotonic() - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = self.db.clock.monotonic()
            await self._prune()

    def _outage(self) -> float:
        return 0.0 if self._away_since is None else self.db.clock.monotonic() - self._away_since

    async def _act(self, found: Findings) -> None:
        changes, sent = await self.db.transaction(partial(self._change, found=found))
        for row in changes:
            kind = AlertFired if row["state"] == AlertState.FIRING else AlertResolved
            self.emitter.emit(kind(row["rule"], row["subject"], row["severity"], row["value"], row["text"]))
        if sent:
            self.db.notify(WAKE_RUNS)

    def _change(self, tx: Transaction, found: Findings) -> tuple[list[Row], int]:
        tx.send_many("put_baselines", found.learned)
        changes = transitions(tx, self.rules, found.readings)
        for row in changes:
            if row["state"] == AlertState.FIRING and row["rule"] in baselines.RULES:
                autonomy.lose_to_drift(tx, row["agent"], row["text"], default=self.level)
        return changes, alert_notices.tell(tx, self.delivery, changes)

    async def _prune(self) -> None:
        if self.keep_us is not None:
            keep_us = self.keep_us
            while await self.db.transaction(lambda tx: _prune(tx, keep_us)) == PRUNED_AT_ONCE:
                pass


def _prune(tx: Transaction, keep_us: int) -> int:
    before = now(tx) - keep_us
    tx.execute("prune_silences", before=before)
    tx.execute("prune_notices", before=before)
    return tx.execute("prune_alerts", before=before, limit=PRUNED_AT_ONCE)


async def look_around(db: Database, calendar: Calendar, *, outage_seconds: float = 0.0) -> Scene:
    """What the rules need that is not in the database."""
    asked = db.clock.monotonic()
    at = await db.read(now)
    latency = db.clock.monotonic() - asked
    apart = abs(db.clock.now_us() - at) / 1_000_000
    folder = _folder(db.url)
    usage = await asyncio.to_thread(shutil.disk_usage, folder)
    return Scene(
        calendar,
        folder=str(folder),
        free_share=usage.free / usage.total if usage.total else None,
        latency_seconds=latency,
        outage_seconds=outage_seconds,
        skew_seconds=max(0.0, apart - latency - SLACK_SECONDS),
    )


def _folder(url: str) -> Path:
    """Of the SQLite file; else the working directory."""
    if not url.startswith("sqlite:"):
        return Path.cwd()
    return Path(unquote(urlsplit(url).path.removeprefix("/"))).absolute().parent


def _find(tx: Transaction, rules: Sequence[AlertRule], scene: Scene) -> Findings:
    known = {rule.name: rule for rule in rules if rule.is_enabled}
    learned = baselines.due_in(tx, {name: rule.threshold for name, rule in known.items()})
    found = [reading for reading in readings(tx, scene) if reading.rule in known]
    is_idle = not (
        learned
        or any(known[reading.rule].is_met(reading.value) for reading in found)
        or tx.fetch_all("live_alerts")
        or tx.fetch_one("any_held_notice")
    )
    return Findings(found, learned, is_idle)


# --- from one state to the next ----------------------------------------------------------------


def transitions(tx: Transaction, rules: Sequence[AlertRule], found: Sequence[Reading]) -> list[Row]:
    """Moves every episode on by what was measured; the rows that have begun to fire or are resolved now."""
    at = now(tx)
    known = {rule.name: rule for rule in rules if rule.is_enabled}
    live = {(row["rule"], row["subject"]): row for row in tx.fetch_all("live_alerts")}
    flaps = {
        (row["rule"], row["subject"]): row["flaps"]
        for row in tx.fetch_all("alert_flaps", since=at - FLAP_US, most=FLAPS_COUNTED)
    }
    measured = {(reading.rule, reading.subject): reading for reading in found}
    met = {key for key, reading in measured.items() if known[reading.rule].is_met(reading.value)}
    moves = _Moves()
    for key in sorted(live.keys() | met):
        rule = known.get(key[0])
        if rule is None:
            moves.close(live[key], at)
        else:
            moves.move(rule, live.get(key), measured.get(key), flaps.get(key, 0), at)
    return moves.write(tx)


@dataclass(slots=True)
class _Moves:
    """What changes, gathered and then written with three statements."""

    made: list[Row] = field(default_factory=list)
    changed: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)

    def move(self, rule: AlertRule, row: Row | None, reading: Reading | None, flaps: int, at: int) -> None:
        before = None if row is None else _episode(row)
        after = advance(rule, before, None if reading is None else reading.value, at, flaps=flaps)
        if after is None:
            self.dropped += [] if row is None else [row]
        elif row is None:
            assert reading is not None
            self.made.append(_new_row(rule, reading, after, flaps))
        else:
            self.changed.append(_changed_row(row, rule, reading, after, flaps))

    def close(self, row: Row, at: int) -> None:
        """Its rule is off."""
        if row["state"] == AlertState.PENDING:
            self.dropped.append(row)
        else:
            self.changed.append(row | {"before": row["state"], "state": AlertState.RESOLVED, "resolved_at": at})

    def write(self, tx: Transaction) -> list[Row]:
        tx.send_many("drop_alerts", [{"id": row["id"]} for row in self.dropped])
        written = {row["id"] for row in tx.fetch_many("insert_alerts", [_only(row, MADE) for row in self.made])}
        written |= {row["id"] for row in tx.fetch_many("update_alerts", [_only(row, CHANGED) for row in self.changed])}
        rows = [row for row in (*self.made, *self.changed) if row["id"] in written and _is_news(row)]
        audit.record(tx, [_entry(row) for row in rows])
        return rows


MADE = (
    *("id", "rule", "subject", "agent", "tenant", "state", "severity", "value", "threshold", "unit", "text"),
    *("runbook", "flaps", "since", "met_at", "fired_at"),
)
CHANGED = (
    *("id", "before", "state", "severity", "value", "threshold", "text", "flaps"),
    *("since", "met_at", "fired_at", "resolved_at"),
)


def _only(row: Row, names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}


def _is_news(row: Mapping[str, object]) -> bool:
    return row["state"] != row.get("before") and row["state"] != AlertState.PENDING


def _episode(row: Row) -> Episode:
    return Episode(AlertState(row["state"]), row["since"], row["met_at"], row["fired_at"], row["resolved_at"])


def _new_row(rule: AlertRule, reading: Reading, after: Episode, flaps: int) -> Row:
    return {
        "id": new_id(),
        "rule": rule.name,
        "subject": reading.subject,
        "agent": reading.agent,
        "tenant": reading.tenant,
        "severity": rule.severity,
        "value": reading.value,
        "threshold": rule.threshold,
        "unit": rule.unit,
        "text": reading.text,
        "runbook": rule.runbook,
        "flaps": flaps,
        "told_at": None,
        **asdict(after),
    }


def _changed_row(row: Row, rule: AlertRule, reading: Reading | None, after: Episode, flaps: int) -> Row:
    """While it is met it says what is measured now; afterwards, what it was last."""
    is_met = reading is not None and after.met_at != row["met_at"]
    said = {"value": reading.value, "text": reading.text} if reading is not None and is_met else {}
    facts = {"before": row["state"], "severity": rule.severity, "threshold": rule.threshold, "flaps": flaps}
    return row | facts | said | asdict(after)


def _entry(row: Row) -> audit.AuditRow:
    return audit.entry(
        f"alert.{row['state']}" if row["state"] == AlertState.RESOLVED else "alert.fired",
        "alert",
        row["id"],
        principal=PRINCIPAL,
        tenant=row["tenant"],
        before=row.get("before"),
        after=row["state"],
        reason=f"{row['rule']} of {row['subject']}: {row['text']}",
    )
