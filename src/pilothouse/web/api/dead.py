"""Dead letters: failed runs that nobody has dealt with; list them, redrive or dismiss many at once."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import dead
from pilothouse.control.dead import DeadFilter
from pilothouse.control.views import view
from pilothouse.web import requests, schemas
from pilothouse.web.access import Caller, caller_of
from pilothouse.web.answers import Limit, answer, page
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["dead letters"])


@router.get("/dead", responses=gives(schemas.DeadPage))
async def list_dead(
    backend: BackendOf,
    agent: str | None = None,
    tenant: str | None = None,
    error_type: str | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest dead letters first."""
    wanted = DeadFilter(agent, tenant, error_type)
    rows = await dead.list_dead(backend.db, wanted, after=after, limit=limit + 1)
    return page([view(row) for row in rows], limit=limit, key="id")


@router.post("/dead/redrive", openapi_extra=takes(requests.RedriveDead), responses=gives(schemas.Count))
async def redrive_dead(request: Request, backend: BackendOf) -> Response:
    """Queues the dead letters of a filter again with fresh attempts."""
    body, caller = await read_model(request, requests.RedriveDead), caller_of(request)
    count = await dead.redrive_many(
        backend.db, _filter(body, caller), principal=caller.principal, start_from=body.start_from, reason=body.reason
    )
    return answer({"count": count})


@router.post("/dead/dismiss", openapi_extra=takes(requests.DismissDead), responses=gives(schemas.Count))
async def dismiss_dead(request: Request, backend: BackendOf) -> Response:
    """Sets the dead letters of a filter aside; they stay in the run log."""
    body, caller = await read_model(request, requests.DismissDead), caller_of(request)
    count = await dead.dismiss_many(backend.db, _filter(body, caller), principal=caller.principal, reason=body.reason)
    return answer({"count": count})


def _filter(body: requests.DeadChoice, caller: Caller) -> DeadFilter:
    return DeadFilter(body.agent, caller.own_tenant(body.tenant), body.error_type)
