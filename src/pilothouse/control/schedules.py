"""Schedules: workers register them, the scheduler fires what is due, people pause, resume and fire them by hand.

A fire and the step to the next instant are one transaction, and the run's idempotency key names schedule and instant:
whatever crashes, and however many schedulers believe that they lead, an instant fires once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pilothouse import payloads
from pilothouse.clock import from_datetime, isoformat, to_datetime
from pilothouse.control import audit, cancels, runs
from pilothouse.control.instants import now as database_now
from pilothouse.control.runs import Request, Submitted
from pilothouse.domain.runs import TERMINAL
from pilothouse.domain.schedules import CatchUp, Chosen, Overlap, choose_fires
from pilothouse.errors import ConfigError, Conflict, NotFound, Refused
from pilothouse.store.database import Database, Row, Transaction

FIRE_BATCH = 100
DUE_LIMIT = 1000
"""Instants of one schedule that one turn looks at; the next turn goes on after them."""

SHOWN_FIRES = 5


@dataclass(frozen=True, slots=True)
class ScheduleCard:
    """A schedule as code declares it. `input` is canonical JSON; `catch_up_limit` bounds the policy `all`."""

    name: str
    agent: str
    cron: str
    timezone: str = "UTC"
    input: str = "{}"
    lane: str | None = None
    priority: int | None = None
    tenant: str = "default"
    catch_up: CatchUp = CatchUp.ONE
    catch_up_limit: int = 10
    overlap: Overlap = Overlap.SKIP


_FIELDS = tuple(ScheduleCard.__dataclass_fields__)


def check_card(card: ScheduleCard) -> None:
    """Raises ConfigError that names the schedule, the field, its value and what would fit."""
    try:
        zone = ZoneInfo(card.timezone)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigError(
            f"schedule {card.name!r}: timezone {card.timezone!r} does not exist; use a name like Europe/Paris"
        ) from error
    try:
        has_any = next(CronSim(card.cron, datetime(2024, 1, 1, tzinfo=zone)), None) is not None
    except CronSimError as error:
        raise ConfigError(
            f"schedule {card.name!r}: cron {card.cron!r} cannot be read: {error}; "
            "it has five fields, minute hour day month weekday, for example '0 2 * * *'"
        ) from error
    if not has_any:
        raise ConfigError(f"schedule {card.name!r}: cron {card.cron!r} never fires; no such day comes")
    if card.catch_up_limit < 1:
        raise ConfigError(f"schedule {card.name!r}: catch_up_limit is {card.catch_up_limit}; it must be at least 1")


def instants(cron: str, timezone: str, after: int) -> Iterator[int]:
    """The instants at which a schedule fires after `after`, in microseconds, ascending.

    As in Debian's cron: an hour that the clocks skip fires once, right after the change; one that they repeat fires
    once, except for schedules of every hour or minute, which follow the time that passes.
    """
    start = to_datetime(after).astimezone(ZoneInfo(timezone))
    return (from_datetime(moment.astimezone(UTC)) for moment in CronSim(cron, start))


def next_instant(cron: str, timezone: str, after: int) -> int | None:
    return next(instants(cron, timezone, after), None)


# --- what code declares ------------------------------------------------------------------------


def register(tx: Transaction, app: str, cards: Sequence[ScheduleCard], *, principal: str) -> None:
    """Makes an App's schedules known; those that it no longer declares fire no more.

    A schedule whose time has not changed keeps its next fire, so that what was missed is made up for.
    """
    known = {row["name"]: row for row in tx.fetch_all("list_schedules")}
    taken = [card.name for card in cards if card.name in known and known[card.name]["app"] != app]
    if taken:
        raise ConfigError(f"schedule {taken[0]!r} belongs to App {known[taken[0]]['app']!r}; give it another name")
    changed = [card for card in cards if _differs(card, known.get(card.name))]
    now = database_now(tx)
    tx.send_many("upsert_schedules", [_row(card, app, known.get(card.name), now, principal) for card in changed])
    declared = {card.name for card in cards}
    removed = [n for n, row in known.items() if row["app"] == app and n not in declared and row["removed_at"] is None]
    tx.send_many("remove_schedules", [{"name": name} for name in removed])
    for card in changed:
        _record(tx, "schedule.registered", {"name": card.name, "tenant": card.tenant}, principal)
    for name in removed:
        _record(tx, "schedule.removed", known[name], principal)


def _differs(card: ScheduleCard, known: Row | None) -> bool:
    if known is None or known["removed_at"] is not None:
        return True
    return any(known[name] != getattr(card, name) for name in _FIELDS)


def _row(card: ScheduleCard, app: str, known: Row | None, now: int, principal: str) -> Row:
    has_same_time = (
        known is not None
        and known["removed_at"] is None
        and (known["cron"], known["timezone"]) == (card.cron, card.timezone)
    )
    following = known["next_fire_at"] if has_same_time and known else next_instant(card.cron, card.timezone, now)
    values = {name: getattr(card, name) for name in _FIELDS}
    return values | {"app": app, "next_fire_at": following, "registered_by": principal}


# --- firing ------------------------------------------------------------------------------------


def fire_due(tx: Transaction, *, principal: str) -> int:
    """Fires what is due and moves each schedule to its next instant; how many runs were submitted."""
    return sum(_fire_schedule(tx, row, principal) for row in tx.fetch_all("due_schedules", limit=FIRE_BATCH))


def _fire_schedule(tx: Transaction, schedule: Row, principal: str) -> int:
    now = schedule["now"]
    later = instants(schedule["cron"], schedule["timezone"], schedule["next_fire_at"])
    due = [schedule["next_fire_at"], *islice(takewhile(lambda instant: instant <= now, later), DUE_LIMIT - 1)]
    chosen = choose_fires(due, now, CatchUp(schedule["catch_up"]), schedule["catch_up_limit"])
    if chosen.dropped:
        _record(tx, "schedule.missed", schedule, principal, reason=_missed(chosen, due))
    outcomes = []
    for instant in chosen.fires:
        outcome = _fire(tx, schedule, _key(schedule["name"], instant), principal)
        schedule = schedule | _noted(schedule, instant, outcome)
        outcomes.append(outcome)
    _move(tx, schedule, due)
    return sum(isinstance(outcome, Submitted) and outcome.is_new for outcome in outcomes)


def _key(name: str, instant: int) -> str:
    return f"schedule:{name}:{isoformat(instant)}"


def _noted(schedule: Row, instant: int, outcome: Submitted | Refused | None) -> Row:
    """What a fire leaves in its schedule."""
    run_id = outcome.id if isinstance(outcome, Submitted) else schedule["last_run_id"]
    error = f"the fire at {isoformat(instant)} was refused: {outcome}" if isinstance(outcome, Refused) else None
    return {"last_fire_at": instant, "last_run_id": run_id, "last_error": error}


def _move(tx: Transaction, schedule: Row, due: Sequence[int]) -> None:
    move = {name: schedule[name] for name in ("name", "last_fire_at", "last_run_id", "last_error")}
    following = next_instant(schedule["cron"], schedule["timezone"], due[-1])
    tx.fetch_many("move_schedule", [move | {"expected": due[0], "next_fire_at": following}])


def _missed(chosen: Chosen, due: Sequence[int]) -> str:
    return f"{chosen.dropped} of {len(due)} fires were missed and not made up for, the first at {isoformat(due[0])}"


def _fire(tx: Transaction, schedule: Row, key: str, principal: str) -> Submitted | Refused | None:
    """One fire: its run, why it was refused, or None where the last run keeps it from taking place."""
    if not _makes_room(tx, schedule, principal):
        _record(tx, "schedule.skipped", schedule, principal, reason=f"run {schedule['last_run_id']} has not ended")
        return None
    request = Request(
        agent=schedule["agent"],
        input=payloads.decode(schedule["input"]),
        principal=f"schedule:{schedule['name']}",
        lane=schedule["lane"],
        priority=schedule["priority"],
        idempotency_key=key,
        tenant=schedule["tenant"],
    )
    (answer,) = runs.submit_runs(tx, [request])
    if isinstance(answer, Refused):
        _record(tx, "schedule.refused", schedule, principal, reason=str(answer))
    elif answer.is_new:
        _record(tx, "schedule.fired", schedule, principal, run_id=answer.id)
    return answer


def _makes_room(tx: Transaction, schedule: Row, principal: str) -> bool:
    """Whether this fire may start a run now; the policy `cancel` cancels the last one for it."""
    last = tx.fetch_one("run_by_id", id=schedule["last_run_id"]) if schedule["last_run_id"] else None
    if last is None or last["state"] in TERMINAL or schedule["overlap"] == Overlap.ALLOW:
        return True
    if schedule["overlap"] == Overlap.SKIP:
        return False
    cancels.cancel_lineage(tx, last["id"], principal=principal, reason=f"schedule {schedule['name']!r} fired again")
    return True


def _record(
    tx: Transaction, action: str, schedule: Row, principal: str, *, reason: str | None = None, run_id: str | None = None
) -> None:
    name, tenant = schedule["name"], schedule["tenant"]
    entry = audit.entry(action, "schedule", name, principal=principal, tenant=tenant, reason=reason, run_id=run_id)
    audit.record(tx, [entry])


# --- what people do ----------------------------------------------------------------------------


async def list_schedules(db: Database, *, tenant: str | None = None) -> list[Row]:
    """By name; `tenant` None: those of all tenants."""
    if tenant is None:
        return await db.read(lambda tx: tx.fetch_all("list_schedules"))
    return await db.read(lambda tx: tx.fetch_all("schedules_of_tenant", tenant=tenant))


async def show_schedule(db: Database, name: str) -> Row:
    """One schedule. Raises NotFound with the names that come close."""
    return await db.read(lambda tx: _find(tx, name))


def upcoming(row: Row, *, count: int = SHOWN_FIRES) -> list[int]:
    """The next instants at which a schedule fires; none while it is paused or removed."""
    if row["next_fire_at"] is None or row["paused_at"] is not None or row["removed_at"] is not None:
        return []
    later = instants(row["cron"], row["timezone"], row["next_fire_at"])
    return [row["next_fire_at"], *islice(later, count - 1)]


async def pause_schedule(db: Database, name: str, *, principal: str) -> Row:
    """Raises NotFound, Conflict where it is paused or removed already."""

    def work(tx: Transaction) -> Row:
        schedule = _find(tx, name)
        if tx.fetch_one("pause_schedule", name=name) is None:
            raise Conflict(f"schedule {name!r} {_standing(schedule)}; it does not fire anyway")
        _record(tx, "schedule.paused", schedule, principal)
        return _find(tx, name)

    return await db.transaction(work)


async def resume_schedule(db: Database, name: str, *, principal: str) -> Row:
    """What would have fired while it was paused does not. Raises NotFound, Conflict where it is not paused."""

    def work(tx: Transaction) -> Row:
        schedule = _find(tx, name)
        following = next_instant(schedule["cron"], schedule["timezone"], database_now(tx))
        if tx.fetch_one("resume_schedule", name=name, next_fire_at=following) is None:
            raise Conflict(f"schedule {name!r} {_standing(schedule)}; only a paused one can be resumed")
        _record(tx, "schedule.resumed", schedule, principal)
        return _find(tx, name)

    return await db.transaction(work)


async def fire_schedule(db: Database, name: str, *, principal: str, key: str | None = None) -> Submitted:
    """Fires now, paused or not, whatever its next instant; `key` makes it safe to ask again.

    Raises NotFound, Conflict where its overlap policy skips the fire, and what a submit raises.
    """

    def work(tx: Transaction) -> Submitted | Refused:
        schedule = tx.fetch_one("lock_schedule", name=name) or _find(tx, name)
        if schedule["removed_at"] is not None:
            raise Conflict(f"schedule {name!r} {_standing(schedule)}; declare it again in the App")
        instant = schedule["now"]
        outcome = _fire(tx, schedule, key or f"{_key(name, instant)}:by-hand", principal)
        if outcome is None:
            raise Conflict(
                f"run {schedule['last_run_id']} of the last fire has not ended, and overlap is 'skip'; cancel it first"
            )
        tx.execute("note_fire", name=name, **_noted(schedule, instant, outcome))
        return outcome

    answer = await db.transaction(work)
    db.notify(runs.WAKE_RUNS)
    if isinstance(answer, Refused):
        raise answer
    return answer


def _find(tx: Transaction, name: str) -> Row:
    row = tx.fetch_one("schedule_by_name", name=name)
    if row is not None:
        return row
    names = [each["name"] for each in tx.fetch_all("list_schedules")]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none yet'}"
    raise NotFound(f"there is no schedule {name!r}; {hint}")


def _standing(row: Row) -> str:
    if row["removed_at"] is not None:
        return "is not declared by its App any more"
    return "is not paused" if row["paused_at"] is None else "is paused"


def public(row: Row) -> dict[str, Any]:
    """A schedule as users see it, with the instants that come next."""
    state = "removed" if row["removed_at"] is not None else "paused" if row["paused_at"] is not None else "active"
    shown = {name: value for name, value in row.items() if name not in ("next_fire_at", "removed_at", "paused_at")}
    return shown | {"state": state, "next_fires": [isoformat(instant) for instant in upcoming(row)]}
