"""Autonomy: how much agents may do on their own; promote and demote them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import autonomy
from pilothouse.control.autonomy import LevelChange
from pilothouse.control.views import view
from pilothouse.domain.autonomy import Level
from pilothouse.web import autonomy_schemas as schemas
from pilothouse.web import requests
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1/agents/{name}", tags=["agents"])


@router.get("/autonomy", responses=gives(schemas.AutonomyList))
async def get_autonomy(name: str, backend: BackendOf) -> Response:
    """The level of each version and action, the evidence, and what is missing for more."""
    rows = await autonomy.list_autonomy(backend.db, name, default=backend.settings.new_agent_level)
    return answer({"items": [view(row) for row in rows], "next": None})


@router.post("/autonomy/promote", responses=gives(schemas.Autonomy), openapi_extra=takes(requests.Promote))
async def promote_agent(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Lets an action do more on its own; 409 with what is missing where the evidence does not suffice."""
    body = await read_model(request, requests.Promote)
    asked = LevelChange(name, body.action, Level(body.to) if body.to else None, body.version)
    default = backend.settings.new_agent_level
    return answer(view(await autonomy.promote(backend.db, asked, default=default, principal=principal)))


@router.post(
    "/autonomy/demote", responses=gives(schemas.Autonomy), openapi_extra=takes(requests.Demote, required=False)
)
async def demote_agent(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Takes autonomy away from an action, or from all of a version."""
    body = await read_model(request, requests.Demote)
    asked = LevelChange(name, body.action, Level(body.to), body.version)
    default, reason = backend.settings.new_agent_level, body.reason or "demoted by hand"
    return answer(view(await autonomy.demote(backend.db, asked, reason=reason, default=default, principal=principal)))


@router.post("/scores", responses=gives(schemas.Scored), openapi_extra=takes(requests.Scores))
async def report_scores(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Takes the scores of its latest runs: five in a row below the baseline return it to supervised."""
    body = await read_model(request, requests.Scores)
    default = backend.settings.new_agent_level
    is_demoted = await autonomy.report_scores(
        backend.db, name, body.scores, baseline=body.baseline, default=default, principal=principal
    )
    return answer({"agent": name, "demoted": is_demoted})
