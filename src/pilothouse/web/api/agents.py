"""Agents: what workers have registered."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import agent_pages, agents, switches
from pilothouse.control.agent_health import all_figures_of
from pilothouse.control.switches import TripOrder
from pilothouse.control.views import view
from pilothouse.web import agent_schemas, requests, schemas, switch_schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["agents"])


@router.get("/agents", responses=gives(schemas.AgentList))
async def list_agents(backend: BackendOf) -> Response:
    """All agents by name, each with the schema that its inputs are held against."""
    rows = await agents.list_agents(backend.db)
    return answer({"items": [view(agents.public(row)) for row in rows], "next": None})


@router.get("/agents/{name}", responses=gives(schemas.Agent))
async def get_agent(name: str, backend: BackendOf) -> Response:
    return answer(view(agents.public(await agents.show_agent(backend.db, name))))


@router.get("/agents/{name}/health", responses=gives(agent_schemas.AgentStanding))
async def get_agent_health(name: str, backend: BackendOf) -> Response:
    """How it does: one word with reasons, its runs, latency, success and cost, and what keeps it from more."""
    settings = backend.settings
    seen = await agent_pages.look_at(
        backend.db,
        name,
        settings.calendar,
        default=settings.new_agent_level,
        threshold=settings.confidence_auto_threshold,
    )
    return answer(all_figures_of(seen, settings.degrade_at))


@router.post(
    "/agents/{name}/suspend",
    openapi_extra=takes(requests.Suspend, required=False),
    responses=gives(switch_schemas.TrippedSwitch),
)
async def suspend_agent(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Trips switch `agent:NAME`: its runs stay queued, and those that run stop before their next effect."""
    body = await read_model(request, requests.Suspend)
    order = TripOrder(f"agent:{name}", reason=body.reason)
    return answer(view(await switches.trip_switch(backend.db, order, principal=principal)))


@router.post("/agents/{name}/resume", responses=gives(switch_schemas.ResetSwitch))
async def resume_agent(name: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Resets switch `agent:NAME`."""
    return answer(view(await switches.reset_switch(backend.db, f"agent:{name}", principal=principal)))
