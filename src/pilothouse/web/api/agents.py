"""Agents: what workers have registered."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pilothouse.control import agents
from pilothouse.control.views import view
from pilothouse.web import schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["agents"])


@router.get("/agents", responses=gives(schemas.AgentList))
async def list_agents(backend: BackendOf) -> Response:
    """All agents by name, each with the schema that its inputs are held against."""
    rows = await agents.list_agents(backend.db)
    return answer({"items": [view(agents.public(row)) for row in rows], "next": None})


@router.get("/agents/{name}", responses=gives(schemas.Agent))
async def get_agent(name: str, backend: BackendOf) -> Response:
    return answer(view(agents.public(await agents.show_agent(backend.db, name))))
