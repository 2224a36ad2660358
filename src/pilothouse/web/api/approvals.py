"""Approvals: what waits for a person, and their decisions."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import approvals
from pilothouse.control.approvals import Filter, Handover, Said
from pilothouse.domain.approvals import ApprovalState
from pilothouse.web import approval_schemas, requests
from pilothouse.web.access import caller_of
from pilothouse.web.answers import Limit, answer, page
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["approvals"])


@router.get("/approvals", responses=gives(approval_schemas.ApprovalPage))
async def list_approvals(
    request: Request,
    backend: BackendOf,
    *,
    state: ApprovalState | None = None,
    agent: str | None = None,
    action: str | None = None,
    tenant: str | None = None,
    run: str | None = None,
    assigned_to: str | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest first."""
    wanted = Filter(state, agent, action, caller_of(request).own_tenant(tenant), run, assigned_to)
    rows = await approvals.list_approvals(backend.db, wanted, after=after, limit=limit + 1)
    return page([approvals.public(row) for row in rows], limit=limit, key="id")


@router.get("/approvals/{id}", responses=gives(approval_schemas.ApprovalInFull))
async def get_approval(id: str, request: Request, backend: BackendOf) -> Response:
    """Everything that there is to decide on, the votes so far, and what was decided in like cases."""
    return answer(await approvals.show_approval(backend.db, id, tenant=caller_of(request).tenant))


@router.post(
    "/approvals/{id}/decision", openapi_extra=takes(requests.Decide), responses=gives(approval_schemas.Approval)
)
async def decide_approval(id: str, request: Request, backend: BackendOf) -> Response:
    """Approves, rejects or sends back. The same decision again is answered the same; another one with 409."""
    body = await read_model(request, requests.Decide)
    said = Said(body.decision, body.note, body.arguments, body.arguments_hash)
    return answer(await approvals.decide(backend.db, id, said, caller_of(request).decider))


@router.post(
    "/approvals/{id}/delegate", openapi_extra=takes(requests.Delegate), responses=gives(approval_schemas.Approval)
)
async def delegate_approval(id: str, request: Request, backend: BackendOf) -> Response:
    """Lets a named principal decide instead, and tells people so."""
    body = await read_model(request, requests.Delegate)
    handover = Handover(body.to, body.note, backend.settings.channels)
    return answer(await approvals.delegate(backend.db, id, handover, caller_of(request).decider))
