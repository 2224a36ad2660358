"""The first page: in ten seconds, whether it is well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.clock import from_datetime
from pilothouse.control import overview, readiness
from pilothouse.control.insights import QueueInsight
from pilothouse.control.overview import AgentDay, Line, Overview, Past
from pilothouse.control.views import view
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.readiness import worst
from pilothouse.web.access import caller_of
from pilothouse.web.api.overview import shown
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages import wording
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

ITEMS_SHOWN = 5
RUNS_SHOWN = 10
STATES = ("queued", "running", "waiting")
TITLES = {"ready": "All is well", "degraded": "It works, with a limp", "not_ready": "It takes no runs"}
WATCHED = "It works, and needs a look"
ENDINGS = (("succeeded", "green"), ("failed", "red"), ("cancelled", "amber"))
DEPTHS = (("queued", "violet"), ("running", "blue"))


@router.head("/")
@router.get("/")
async def show_overview(request: Request, backend: BackendOf) -> Response:
    if caller_of(request).tenant is not None:
        return redirect(request, "/runs")  # the figures here are those of all tenants
    seen, past = await overview.look_back(backend.db, backend.settings.calendar)
    facts = shown(seen)
    workers = [worker | {"total_slots": sum(worker["slots"].values())} for worker in facts["workers"]]
    return show(
        request,
        "overview.html",
        verdict=await _verdict(backend, facts),
        switches=facts["switches"],
        totals=_totals(seen, past, workers),
        alerts=facts["alerts"] | {"count": sum(facts["alerts"]["firing"].values())},
        approvals=_approvals(past),
        dead=facts["dead"],
        failures=[view(row) for row in seen.dead[:ITEMS_SHOWN]],
        spending=_spent(facts["spending"]["day"]),
        throughput=_chart(past.instants, past.ended, ENDINGS),
        depth=_chart(past.instants, past.depth, DEPTHS),
        lanes=_lanes(seen.queues),
        agents=_agents(seen.queues, past.today),
        workers=[worker for worker in workers if worker["is_live"] or worker["state"] == "draining"] or workers[:1],
        runs=[run | {"took": took(run, seen.now)} for run in facts["runs"][:RUNS_SHOWN]],
    )


async def _verdict(backend: Backend, facts: Mapping[str, Any]) -> dict[str, str]:
    """The worst of what is checked; and where nothing fails, whether something is stopped or fires all the same."""
    checks = await readiness.readiness(backend.db, backend.settings, backend.redis)
    state = worst(checks)
    if state != "ready":
        reasons = [check.detail for check in checks.values() if check.status != "ready"]
        return {"state": state, "title": TITLES[state], "text": wording.sentence("; ".join(reasons))}
    if facts["switches"] or any(facts["alerts"]["firing"].values()):
        return {"state": "degraded", "title": WATCHED, "text": "Every check passes; the rest is below."}
    return {"state": state, "title": TITLES[state], "text": "Every check passes."}


def _approvals(past: Past) -> dict[str, Any]:
    most = overview.APPROVALS_COUNTED
    return {
        "count": min(len(past.approvals), most),
        "has_more": len(past.approvals) > most,
        "nearest": [view(row) for row in past.approvals[:ITEMS_SHOWN]],
    }


def _totals(seen: Overview, past: Past, workers: list[dict[str, Any]]) -> dict[str, Any]:
    live = [worker for worker in workers if worker["is_live"]]
    slots = sum(worker["total_slots"] for worker in live)
    ended = {state: sum(day.ended.get(state, 0) for day in past.today) for state, _ in ENDINGS}
    return {
        **{state: sum(queue.runs.get(state, 0) for queue in seen.queues) for state in STATES},
        "oldest": max((queue.oldest_age_seconds for queue in seen.queues), default=0.0),
        "workers": len(live),
        "slots_hint": f"of {slots} slots" if slots else "no live worker",
        "ended": ended,
        "success": overview.success_share(ended),
    }


def _spent(day: dict[str, Any]) -> dict[str, Any]:
    settled, reserved, limit = day["settled_microusd"], day["reserved_microusd"], day["limit_microusd"]
    hint = "no limit" if limit is None else f"of {wording.usd(limit)}"
    if reserved:
        hint += f", {wording.usd(reserved)} reserved"
    used = (settled + reserved) / limit if limit else 0.0 if limit is None else 1.0
    return {"settled": settled, "used": used, "hint": hint}


# --- tables and charts -------------------------------------------------------------------------


def _lanes(queues: Sequence[QueueInsight]) -> list[dict[str, Any]]:
    """Each lane with the runs of all agents in it, the most urgent lane first."""
    by_lane: dict[str, list[QueueInsight]] = defaultdict(list)
    for queue in queues:
        if queue.lane:
            by_lane[queue.lane].append(queue)
    order = [*LANE_ORDER, *sorted(by_lane.keys() - set(LANE_ORDER))]
    return [{"lane": lane, **_summed(by_lane[lane])} for lane in order if lane in by_lane]


def _agents(queues: Sequence[QueueInsight], today: Sequence[AgentDay]) -> list[dict[str, Any]]:
    """Each agent with its queues and its day."""
    by_agent: dict[str, list[QueueInsight]] = defaultdict(list)
    for queue in queues:
        if queue.agent:
            by_agent[queue.agent].append(queue)
    days = {day.agent: day for day in today}
    nothing = AgentDay("", {}, 0, None)
    return [
        {
            "agent": agent,
            "lanes": [queue.lane for queue in by_agent[agent]],
            "day": days.get(agent, nothing),
            **_summed(by_agent[agent]),
        }
        for agent in sorted(by_agent)
    ]


def _summed(queues: Sequence[QueueInsight]) -> dict[str, Any]:
    runs = {state: sum(queue.runs.get(state, 0) for queue in queues) for state in STATES}
    return {"runs": runs, "oldest": max(queue.oldest_age_seconds for queue in queues)}


def _chart(instants: range, lines: Mapping[str, Line], names: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Lines over the last hour; None where nothing was kept yet. What never came up has no line."""
    if not any(lines.values()):
        return None
    chosen = [(name, tone) for name, tone in names if any(lines.get(name, {}).values())] or names[:1]
    return {
        "unit": "runs",
        "least": 4,
        "at": [at // 1_000_000 for at in instants],
        "series": [
            {"name": name, "values": [lines.get(name, {}).get(at) for at in instants], "tone": tone}
            for name, tone in chosen
        ],
    }


def took(run: dict[str, Any], now_us: int) -> float | None:
    """Seconds from a run's first claim to its end, or to now."""
    if run["started_at"] is None:
        return None
    ended = now_us if run["finished_at"] is None else from_datetime(datetime.fromisoformat(run["finished_at"]))
    return max(0.0, (ended - from_datetime(datetime.fromisoformat(run["started_at"]))) / 1_000_000)
