"""Profiles: where time and money went in the runs of a period, read from the run log page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pilothouse.clock import isoformat
from pilothouse.control import instants, runs
from pilothouse.control.waterfall import facts_of
from pilothouse.domain.profiles import GROUPS, By, Profile
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction

PAGE = 50
MOST_RUNS = 10_000
"""Unless more are asked for. The newest count; the answer says since when."""

DAY_US = 86_400_000_000
CLOCKS_US = 3_600_000_000
"""How far the clock that made an id may be from the database's."""


@dataclass(frozen=True, slots=True)
class Period:
    """Runs that were submitted from `since` until `until`, in microseconds; the last day unless given."""

    since: int | None = None
    until: int | None = None
    agent: str | None = None


async def report(db: Database, period: Period, *, by: By | None = None, most: int = MOST_RUNS) -> dict[str, Any]:
    """Sums over the runs of a period, the newest `most` of them; all groups unless one is asked for.

    `since` and `until` of the answer are what was covered; `is_cut` says that older runs were left out. Raises
    InvalidInput for a period that ends before it begins.
    """
    at = await db.read(instants.now)
    until = period.until if period.until is not None else at + 1
    since = period.since if period.since is not None else until - DAY_US
    if since >= until:
        told = "the period ends before it begins"
        raise InvalidInput(told, [FieldError("since", told)])
    wanted: Row = {"since": since, "until": until, "first": _id_at(since - CLOCKS_US)}
    if period.agent is not None:
        wanted["agent"] = period.agent
    profile, before, covered = Profile(), _id_at(until + CLOCKS_US), until
    while profile.runs < most:
        limit = min(PAGE, most - profile.runs)
        page = await db.read(partial(_page, profile=profile, wanted=wanted | {"before": before, "limit": limit}))
        if len(page) < limit:
            covered = since
            break
        before, covered = page[-1]["id"], page[-1]["created_at"]
    return {
        "since": isoformat(covered),
        "until": isoformat(until),
        "agent": period.agent,
        "is_cut": covered > since,
        **profile.public(GROUPS if by is None else (by,)),
    }


def _page(tx: Transaction, profile: Profile, wanted: Row) -> Sequence[Row]:
    """Adds the next runs to the sums."""
    page = tx.fetch_all("agent_runs_of_period" if "agent" in wanted else "runs_of_period", **wanted)
    for facts in facts_of(tx, page):
        profile.add(facts)
    return page


async def of_run(db: Database, run_id: str) -> dict[str, Any]:
    """The same sums of one run. Raises NotFound."""

    def work(tx: Transaction) -> dict[str, Any]:
        profile = Profile()
        (facts,) = facts_of(tx, [runs.run_in(tx, run_id)])
        profile.add(facts)
        return {"run": run_id, "agent": facts.run["agent"], "state": facts.run["state"]} | profile.public()

    return await db.read(work)


def _id_at(at: int) -> str:
    """The least id that is made at an instant."""
    text = f"{max(0, at) // 1000:012x}"
    return f"{text[:8]}-{text[8:12]}"
