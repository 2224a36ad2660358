"""A run's budget: the limits that apply to it, those that it has met, and more of one that keeps it waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pilothouse.control import limits, runs
from pilothouse.control.budgets import (
    Budget,
    Key,
    balances_of,
    budget_of,
    closest,
    closest_of_run,
    limit_rows,
    public,
    set_where,
)
from pilothouse.control.instants import now
from pilothouse.control.ledger import balance_of
from pilothouse.domain.budgets import Hit, Standing, command_for, read_reached, read_wait
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import MOST, OF_A_RUN, Balance, Limit, Payer, Period, Pocket, Unit, dues_of, show_amount
from pilothouse.domain.routes import Route
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import Conflict, FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction

# --- what a run has met ------------------------------------------------------------------------------

_HOW = {"suspended": "blocked", "answered": "clamped", "skipped": "refused"}


class Note(NamedTuple):
    """A limit that a run has met. `how`: blocked; clamped, where its answer was made shorter; refused, where a smaller
    model or a kept answer did.
    """

    how: str
    hit: Hit


class Met(NamedTuple):
    """`degraded` counts the questions that went to the smaller route because little of a budget was left."""

    notes: tuple[Note, ...]
    degraded: int


def met_by(tx: Transaction, run_id: str) -> Met:
    """The limits that a run has met so far, in no order."""
    notes, degraded = list[Note](), 0
    for row in tx.fetch_all("limit_notes_of_run", run_id=run_id):
        hit = read_reached(row["told"] or "")
        if hit is not None:
            notes.append(Note(_HOW[row["outcome"]], hit))
        elif row["outcome"] == "skipped":
            degraded += 1
    return Met(tuple(notes), degraded)


def summary(tx: Transaction, run_id: str) -> dict[str, Any]:
    """What a run has used and holds, and the limits that it has met, each with what they did."""
    used, met = used_by(tx, run_id), met_by(tx, run_id)
    told = {(note.hit.account, note.hit.period, note.hit.unit, note.how) for note in met.notes}
    hits = [{"account": each[0], "period": each[1], "unit": each[2], "did": each[3]} for each in sorted(told)]
    return {
        "cost_microusd": used.settled.microusd,
        "reserved_microusd": used.reserved.microusd,
        "tokens": used.settled.tokens,
        "actions": used.settled.actions,
        "degraded": met.degraded,
        "limits": hits,
    }


class Explained(NamedTuple):
    """Everything that has bounded a run. `questions` is how many it has asked models, `routes` which way."""

    run: Row
    now: int
    rules: tuple[Budget, ...]
    met: Met
    routes: tuple[Row, ...]
    questions: int

    def how(self, standing: Standing) -> list[str]:
        """What a limit has done to the run."""
        key = standing.account, standing.period, standing.unit
        return sorted({note.how for note in self.met.notes if note.hit[:3] == key})


async def explain(db: Database, run_id: str, calendar: Calendar) -> Explained:
    """Every limit that applies to a run, as it stands now, and which of them it has met. Raises NotFound."""
    return await db.read(lambda tx: explain_in(tx, run_id, calendar))


def explain_in(tx: Transaction, run_id: str, calendar: Calendar) -> Explained:
    run, at, known = runs.run_in(tx, run_id), now(tx), limit_rows(tx)
    work = tx.fetch_one("work_of_run", run_id=run_id)
    assert work is not None
    rules = [*_own_rules(tx, run, known, work), *_shared_rules(tx, run, known, calendar, at)]
    routes = tuple(tx.fetch_all("routes_of_run", run_id=run_id))
    return Explained(run, at, tuple(rules), met_by(tx, run_id), routes, int(work["questions"]))


def _own_rules(tx: Transaction, run: Row, known: Mapping[Key, Row], work: Row) -> list[Budget]:
    rules, used = [], used_by(tx, run["id"])
    for unit in Unit:
        limit = closest_of_run(known, run["id"], run["agent"], unit)
        if limit is not None and limit["amount"] is not None:
            settled, reserved = _used(unit, used, work)
            account, began = f"run:{run['id']}", run["started_at"]
            standing = Standing(account, Period.RUN, unit, limit["amount"], settled, reserved, began)
            rules.append(set_where(limit, standing))
    return rules


def used_by(tx: Transaction, run_id: str) -> Balance:
    """What the ledger holds of a run."""
    row = tx.fetch_one("run_sums", run_id=run_id)
    return Balance() if row is None else balance_of(row)


def _used(unit: Unit, used: Balance, work: Row) -> tuple[int, int]:
    if unit not in OF_A_RUN:
        return used.settled.of(unit), used.reserved.of(unit)
    return (int(work["calls"]) if unit is Unit.CALLS else int(work["worked_us"]) // 1_000_000), 0


def _shared_rules(tx: Transaction, run: Row, known: Mapping[Key, Row], calendar: Calendar, at: int) -> list[Budget]:
    plain = {key: Limit(*key, row["amount"]) for key, row in known.items()}
    dues = {}
    for payer, day, month in _payers(tx, run, calendar, at):
        for due in dues_of(payer, plain, day, month):
            if due.pocket.period != Period.RUN:
                dues[due.pocket, due.limit.unit] = known[due.limit.scope, due.limit.period, due.limit.unit]
    balances = balances_of(tx, {pocket for pocket, _ in dues})
    return [budget_of(row, pocket, balances.get(pocket, Balance()), calendar) for (pocket, _), row in dues.items()]


def _payers(tx: Transaction, run: Row, calendar: Calendar, at: int) -> list[tuple[Payer, str, str]]:
    """What the run has used something as, on each day, and as itself today if it goes on."""
    base = Payer(run["id"], run["tenant"], run["agent"], run["user_id"])
    rows = tx.fetch_all("payers_of_run", run_id=run["id"])
    found = [(base._replace(platform=row["platform"], tool=row["tool"]), row["day"], row["month"]) for row in rows]
    if run["state"] not in TERMINAL or not found:
        found.append((base, calendar.day(at), calendar.month(at)))
    return found


def explained_view(explained: Explained, degrade_at: float, routes: Mapping[str, Route]) -> dict[str, Any]:
    """As users see it; `next` are the commands that make room under the limits that have blocked the run."""
    rules = [
        public(rule, explained.now, degrade_at) | {"did": explained.how(rule.standing)} for rule in explained.rules
    ]
    asked = [_route_view(row, routes.get(row["route"], Route(("offline:none",)))) for row in explained.routes]
    return {
        "run": explained.run["id"],
        "state": explained.run["state"],
        "rules": rules,
        "routes": asked,
        "questions": explained.questions,
        "degraded": explained.met.degraded,
        "next": [command_for(hit) for hit in _without_room(explained)],
    }


def _without_room(explained: Explained) -> list[Hit]:
    """The limits that have blocked the run and would do so again now."""
    if explained.run["state"] in TERMINAL:
        return []
    blocked = {note.hit[:3]: note.hit for note in explained.met.notes if note.how == "blocked"}
    standings = {(each.account, each.period, each.unit): each for each in (rule.standing for rule in explained.rules)}
    found = [(standings[key], hit) for key, hit in blocked.items() if key in standings]
    return [
        hit._replace(limit=each.limit or 0, settled=each.settled, reserved=each.reserved)
        for each, hit in found
        if each.free is not None and each.free < hit.wanted
    ]


def _route_view(row: Row, route: Route) -> dict[str, Any]:
    caps = ("max_calls_per_run", "max_input_tokens", "max_output_tokens")
    return {"name": row["route"], "calls": row["calls"]} | {cap: getattr(route, cap) for cap in caps}


# --- what a run waits for ----------------------------------------------------------------------------


def waited_for(tx: Transaction, run: Row) -> list[Hit]:
    """The limits that keep a run waiting, with their figures as they are now."""
    waits = [row["name"] for row in tx.fetch_all("waits_of_run", run_id=run["id"]) if row["kind"] == "limit"]
    if not waits:
        return []
    wanted = {note.hit[:3]: note.hit.wanted for note in met_by(tx, run["id"]).notes}
    keys = [found for name in waits if (found := read_wait(name))]
    return [_as_now(tx, run, key, wanted.get(key, 1)) for key in keys]


def _as_now(tx: Transaction, run: Row, key: tuple[str, str, Unit], wanted: int) -> Hit:
    account, period, unit = key
    known = limit_rows(tx)
    if period == Period.RUN:
        limit = closest_of_run(known, run["id"], run["agent"], unit)
        used = _used_of(tx, run["id"], unit)
    else:
        limit = closest(known, account, period, unit)
        pocket = Pocket(account, period)
        balance = balances_of(tx, [pocket]).get(pocket, Balance())
        used = balance.settled.of(unit), balance.reserved.of(unit)
    return Hit(account, period, unit, (limit and limit["amount"]) or 0, *used, wanted)


def _used_of(tx: Transaction, run_id: str, unit: Unit) -> tuple[int, int]:
    work = tx.fetch_one("work_of_run", run_id=run_id)
    assert work is not None
    return _used(unit, used_by(tx, run_id), work)


# --- more for a run ----------------------------------------------------------------------------------


class Grant(NamedTuple):
    """So much more than a run has used so far."""

    run_id: str
    unit: Unit
    extra: int


class Granted(NamedTuple):
    """What a run may use from now on. `waits` are other limits that still keep it waiting."""

    used: int
    limit: int
    waits: tuple[Hit, ...]


def granted_view(wanted: Grant, granted: Granted) -> dict[str, Any]:
    """As users see it."""
    waits = [{"account": hit.account, "period": hit.period, "next": command_for(hit)} for hit in granted.waits]
    told = {"run": wanted.run_id, "unit": wanted.unit, "used": granted.used, "limit": granted.limit}
    return told | {"waits": waits}


async def grant(db: Database, wanted: Grant, *, principal: str, reason: str = "") -> Granted:
    """Lets a run use more than it has used so far, and wakes it where it waits for that.

    A limit that leaves it more than that stays. Raises NotFound, Conflict where the run has ended or has no such limit,
    InvalidInput for nothing or less.
    """
    if not 0 < wanted.extra <= MOST:
        told = f"the amount is {wanted.extra}; a grant is more than 0, and at most {MOST}"
        raise InvalidInput(told, [FieldError("amount", told)])

    def work(tx: Transaction) -> Granted:
        tx.send("lock_limits_alone")
        run = runs.run_in(tx, wanted.run_id)
        limit, used = _grantable(tx, run, wanted.unit)
        amount = max(used + wanted.extra, limit)
        if amount > limit:
            told = reason or f"a grant of {show_amount(wanted.extra, wanted.unit)}"
            raised = Limit(f"run:{wanted.run_id}", Period.RUN, wanted.unit, amount)
            limits.set_in(tx, raised, principal=principal, reason=told)
        return Granted(used, amount, tuple(waited_for(tx, run)))

    granted = await db.transaction(work)
    db.notify(runs.WAKE_RUNS)
    return granted


def _grantable(tx: Transaction, run: Row, unit: Unit) -> tuple[int, int]:
    """The run's own limit, and what it has used."""
    if run["state"] in TERMINAL and run["state"] != "failed":
        raise Conflict(f"run {run['id']} is {run['state']}; it uses nothing any more")
    limit = closest_of_run(limit_rows(tx), run["id"], run["agent"], unit)
    if limit is None or limit["amount"] is None:
        raise Conflict(
            f"run {run['id']} has no limit on {unit} of its own; see `pilothouse budget explain {run['id']}`"
        )
    return int(limit["amount"]), sum(_used_of(tx, run["id"], unit))
