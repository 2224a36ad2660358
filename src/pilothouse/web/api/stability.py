"""Stability plans: start, watch and stop them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import stability
from pilothouse.control.stability import PlanTerms
from pilothouse.control.views import view
from pilothouse.domain.autonomy import Level
from pilothouse.web import autonomy_schemas as schemas
from pilothouse.web import requests
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1/stability", tags=["stability"])


@router.get("", responses=gives(schemas.StabilityList))
async def list_plans(backend: BackendOf) -> Response:
    """Plans under way first, then the latest that have ended."""
    return answer({"items": [view(row) for row in await stability.list_plans(backend.db)], "next": None})


@router.post("", status_code=201, responses=gives(schemas.StabilityPlan, 201), openapi_extra=takes(requests.StartPlan))
async def start_plan(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Begins with the first stage; 409 where one of the agent is under way."""
    body = await read_model(request, requests.StartPlan)
    target = body.actions_per_day or backend.settings.max_actions_per_day
    terms = PlanTerms(body.agent, target, body.days_scale, Level(body.target_level))
    return answer(view(await stability.start_plan(backend.db, terms, principal=principal)), 201)


@router.get("/{agent}", responses=gives(schemas.StabilityPlan))
async def get_plan(agent: str, backend: BackendOf) -> Response:
    """The agent's plan that is under way, or its latest: every criterion and its figures."""
    return answer(view(await stability.show_plan(backend.db, agent)))


@router.post(
    "/{agent}/stop", responses=gives(schemas.StabilityPlan), openapi_extra=takes(requests.StopPlan, required=False)
)
async def stop_plan(agent: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Ends it without a verdict; levels and cap become what they were before."""
    body = await read_model(request, requests.StopPlan)
    return answer(view(await stability.stop_plan(backend.db, agent, reason=body.reason or None, principal=principal)))
