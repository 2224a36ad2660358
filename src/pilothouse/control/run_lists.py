"""Lists of runs, newest first, by what people look for. A page looks at a bounded number, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse import payloads
from pilothouse.clock import first_id
from pilothouse.control import blobs
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database, Row, Transaction

WINDOW = 5_000
"""How many runs a page walks over at most to find those that fit. What is few of an agent's in its list is as many."""

SELDOM_WINDOW = 1_500
"""The same where they lie far apart."""

TEXT_WINDOW = 2_000
"""The same where it reads what they say."""

DEEP = 5_000
"""Beyond this depth a queue is walked over from its newest run."""

SELDOM = frozenset({RunState.FAILED, RunState.CANCELLED, RunState.WAITING})
DEFAULT_TENANT = "default"
FIRST, LAST = "", "~"
"""Before and after every id."""

SLACK_US = 600_000_000
"""An id is made a little before its run is stored, by another clock."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs to list; None: any. Instants in microseconds. `version` is the beginning of a fingerprint, `text` a
    part of the input or the error, in any case.
    """

    state: str | None = None
    agent: str | None = None
    lane: str | None = None
    tenant: str | None = None
    parent_id: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    version: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """`next` is what the following page comes after; None on the last. Where it is not full because enough was walked
    over, `searched_back_to` is how far.
    """

    rows: list[Row]
    next: str | None = None
    searched_back_to: int | None = None


async def list_runs(db: Database, wanted: Filter, *, after: str | None = None, limit: int = 50) -> RunPage:
    """Newest first; `after` is the `next` of the page before."""
    is_real = not db.clock.frozen  # else ids and instants have nothing to do with each other
    return await db.read(lambda tx: _list_in(tx, wanted, after=after, limit=limit, is_real=is_real))


async def inputs_of(db: Database, run_ids: Sequence[str]) -> dict[str, str]:
    """How the inputs of runs begin, by their ids; what is so long that it is kept apart is left out."""
    rows = await db.read(lambda tx: tx.fetch_many("inputs_of_runs", [{"id": each} for each in run_ids]))
    return {row["id"]: row["input"] for row in rows if not row["input"].startswith(blobs.PREFIX)}


def children_in(tx: Transaction, run_id: str, limit: int) -> list[Row]:
    """The latest runs that a run has started."""
    return _fetch(tx, "list_children", Filter(parent_id=run_id), LAST, FIRST, limit)


def _list_in(tx: Transaction, wanted: Filter, *, after: str | None, limit: int, is_real: bool) -> RunPage:
    before, earliest = after or LAST, FIRST
    if is_real and wanted.created_before is not None:
        before = min(before, first_id(wanted.created_before + SLACK_US))
    if is_real and wanted.created_after is not None:
        earliest = first_id(max(0, wanted.created_after - SLACK_US))
    statement = _statement(tx, wanted)
    lowest = _floor(tx, statement, wanted, before)
    if statement == "list_runs_of_agent" and lowest == FIRST:
        statement = "list_few_runs_of_agent"
    floor = max(earliest, lowest)
    rows = _fetch(tx, statement, wanted, before, floor, limit + 1)
    if len(rows) > limit:
        return RunPage(rows[:limit], rows[limit - 1]["id"])
    if floor == earliest:
        return RunPage(rows)
    reached = tx.fetch_one("run_by_id", id=floor)
    return RunPage(rows, floor, reached["created_at"] if reached else None)


def _statement(tx: Transaction, wanted: Filter) -> str:
    """The list that walks over the fewest runs for it."""
    if wanted.parent_id is not None:
        return "list_children"
    if wanted.state in SELDOM:
        return "list_seldom_runs"
    if wanted.state == RunState.RUNNING:
        return "list_running_runs"
    if wanted.state == RunState.QUEUED and _depth(tx) < DEEP:
        return "list_queued_runs"
    if wanted.agent is not None:
        return "list_runs_of_agent"
    if wanted.tenant not in (None, DEFAULT_TENANT):
        return "list_runs_of_tenant"
    return "list_runs"


def _depth(tx: Transaction) -> int:
    row = tx.fetch_one("queue_depth", deep=DEEP)
    return int(row["depth"]) if row else 0


_FLOORS = {
    "list_runs": ("floor_of_runs", ()),
    "list_runs_of_agent": ("floor_of_agent", ("agent",)),
    "list_runs_of_tenant": ("floor_of_tenant", ("tenant",)),
    "list_seldom_runs": ("floor_of_seldom_runs", ("state",)),
}


def _floor(tx: Transaction, statement: str, wanted: Filter, before: str) -> str:
    """The oldest run that this page looks at; the others have few to look at, or nothing to look for."""
    if statement not in _FLOORS or wanted == Filter():
        return FIRST
    name, columns = _FLOORS[statement]
    window = TEXT_WINDOW if wanted.text else SELDOM_WINDOW if statement == "list_seldom_runs" else WINDOW
    row = tx.fetch_one(name, before=before, window=window - 1, **{each: getattr(wanted, each) for each in columns})
    return FIRST if row is None else str(row["id"])


def _fetch(tx: Transaction, statement: str, wanted: Filter, before: str, floor: str, limit: int) -> list[Row]:
    values: dict[str, Any] = {
        "before": before,
        "floor": floor,
        "limit": limit,
        "state": wanted.state,
        "agent": wanted.agent,
        "lane": wanted.lane,
        "tenant": wanted.tenant,
        "version": wanted.version,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "text": _pattern(wanted.text),
    }
    if statement == "list_running_runs":
        del values["state"]
    if statement == "list_queued_runs":
        values["deep"] = DEEP
    if statement == "list_children":
        values["parent_id"] = wanted.parent_id
    return tx.fetch_all(statement, **values)


def _pattern(text: str | None) -> str | None:
    """What a stored text is like that has this in it: within JSON some characters are written otherwise."""
    if not text:
        return None
    written = payloads.encode(text)[1:-1].lower()
    for sign in "!%_":
        written = written.replace(sign, f"!{sign}")
    return f"%{written}%"
