"""The list of runs: live, narrowed by what its address says, a bounded number at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import agents, run_lists
from pilothouse.control.views import run_view
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.overview import took
from pilothouse.web.pages.run_filters import SPANS, STATES, read_query, shown_query
from pilothouse.web.pages.run_steps import error_of
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50


@router.get("/runs")
async def list_page(request: Request, backend: BackendOf, after: str | None = None) -> Response:
    caller, now = caller_of(request), backend.db.clock.now_us()
    query = read_query(dict(request.query_params), caller.tenant, now)
    found = await run_lists.list_runs(backend.db, query.wanted, after=after, limit=SHOWN)
    inputs = await run_lists.inputs_of(backend.db, [row["id"] for row in found.rows])
    rows = [shown_run(row, now) | {"input": inputs.get(row["id"])} for row in found.rows]
    return show(
        request,
        "runs.html",
        rows=rows,
        search=query,
        fields=shown_query(query),
        states=STATES,
        lanes=LANE_ORDER,
        spans=[(name, told) for name, (told, _) in SPANS.items()],
        agents=await agent_names(backend),
        older=query.address("/runs", after=found.next) if found.next else None,
        is_first=after is None,
        searched_back_to=found.searched_back_to,
        shows_tenant=any(row["tenant"] != run_lists.DEFAULT_TENANT for row in rows),
    )


async def agent_names(backend: Backend) -> list[str]:
    return [row["name"] for row in await agents.list_agents(backend.db)]


def shown_run(row: dict[str, Any], now_us: int) -> dict[str, Any]:
    """A run as a line of a list. What is queued or waits has taken no time yet, however long it has been there."""
    run = run_view(row)
    is_ahead = run["state"] == "queued" and row["available_at"] is not None and row["available_at"] > now_us
    is_idle = run["state"] in ("queued", "waiting")
    error = error_of(run["error"])
    return run | {
        "error": error,
        "took": None if is_idle else took(run, now_us),
        "due": run["available_at"] if is_ahead else None,
    }
