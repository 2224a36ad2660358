"""Many runs at once: which ones a cancel, a redrive or a dismiss would reach, and then each of them by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pilothouse import payloads
from pilothouse.control import cancels, dead, run_lists, runs
from pilothouse.control.dead import RedriveFrom
from pilothouse.control.run_lists import Filter
from pilothouse.control.views import shown_state
from pilothouse.domain.runs import RunState
from pilothouse.errors import Refused
from pilothouse.store.database import Database, Row

Verb = Literal["cancel", "redrive", "dismiss"]

MOST = 500
"""Runs at once; whoever means more repeats it."""

PAGE = 250
PAGES_READ = 6

OPEN = (RunState.QUEUED, RunState.WAITING, RunState.RUNNING)
STATES: dict[Verb, tuple[str, ...]] = {"cancel": OPEN, "redrive": (RunState.FAILED,), "dismiss": (RunState.FAILED,)}


@dataclass(frozen=True, slots=True)
class Choice:
    """The runs of a filter, or of a list of ids. `error_type` is the name of the exception that failed a run."""

    wanted: Filter = field(default_factory=Filter)
    ids: tuple[str, ...] | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runs that a verb applies to. `has_more`: it was not looked further."""

    rows: list[Row]
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one run: its state after it, or why it was refused."""

    id: str
    is_done: bool
    told: str


@dataclass(frozen=True, slots=True)
class Order:
    """What to do, on whose behalf; `tenant` None: may reach the runs of all."""

    verb: Verb
    principal: str
    tenant: str | None = None
    reason: str = ""
    start_from: RedriveFrom = "failure"


async def choose(db: Database, verb: Verb, choice: Choice) -> Chosen:
    """What a verb would reach: of a filter the runs in a state that it applies to, at most 500, the newest first."""
    if choice.ids is not None:
        ids = choice.ids
        found = await db.read(lambda tx: [tx.fetch_one("run_by_id", id=id) for id in ids[:MOST]])
        is_own = choice.wanted.tenant
        rows = [row for row in found if row is not None and is_own in (None, row["tenant"])]
        return Chosen([row for row in rows if row["state"] in STATES[verb]], len(ids) > MOST)
    states = [state for state in STATES[verb] if choice.wanted.state in (None, state)]
    chosen = Chosen([])
    for state in states:
        more = await _walk(db, replace(choice.wanted, state=state), _fits(verb, choice), MOST - len(chosen.rows))
        chosen = Chosen(chosen.rows + more.rows, chosen.has_more or more.has_more)
    return chosen


async def _walk(db: Database, wanted: Filter, fits: Callable[[Row], bool], room: int) -> Chosen:
    rows: list[Row] = []
    after: str | None = None
    for _ in range(PAGES_READ):
        page = await run_lists.list_runs(db, wanted, after=after, limit=PAGE)
        rows += [row for row in page.rows if fits(row)]
        after = page.next
        if after is None or len(rows) > room:
            break
    return Chosen(rows[:room], after is not None or len(rows) > room)


def _fits(verb: Verb, choice: Choice) -> Callable[[Row], bool]:
    if verb == "cancel":
        return lambda row: row["cancel_requested_at"] is None
    return lambda row: row["dismissed_at"] is None and choice.error_type in (None, error_type_of(row))


def error_type_of(row: Row) -> str:
    """The name of the exception that failed a run."""
    error: Any = payloads.decode(row["error"]) if row["error"] else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


async def carry_out(db: Database, order: Order, ids: Sequence[str]) -> list[Done]:
    """Does it to each run in a transaction of its own; a refused one leaves the others as they are."""
    return [await _do(db, order, id) for id in ids[:MOST]]


async def _do(db: Database, order: Order, id: str) -> Done:
    try:
        run = await runs.get_run(db, id)
        if order.tenant not in (None, run["tenant"]):
            raise runs.unknown_run(id)
        return Done(id, is_done=True, told=shown_state(await _verb(db, order, id)))
    except Refused as error:
        return Done(id, is_done=False, told=str(error))


async def _verb(db: Database, order: Order, id: str) -> Row:
    who: dict[str, str] = {"principal": order.principal, "reason": order.reason}
    match order.verb:
        case "cancel":
            return await cancels.cancel_run(db, id, **who)
        case "redrive":
            return await dead.redrive_run(db, id, start_from=order.start_from, **who)
        case "dismiss":
            return await dead.dismiss_run(db, id, **who)


def bulk_view(chosen: Chosen, done: Sequence[Done] | None) -> dict[str, Any]:
    """What was done to which runs; None: what would be."""
    return {"dry_run": done is None, "runs": list(_lines(chosen, done)), "has_more": chosen.has_more}


def _lines(chosen: Chosen, done: Sequence[Done] | None) -> Iterator[dict[str, Any]]:
    told = {each.id: each for each in done or ()}
    for row in chosen.rows:
        line = {"id": row["id"], "agent": row["agent"], "tenant": row["tenant"], "state": shown_state(row)}
        after = told.get(row["id"])
        yield line | {"done": after is not None and after.is_done, "told": after.told if after else ""}
