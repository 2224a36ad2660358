"""Incidents: report a bad action, see its siblings, record corrections, close it, take its run as a case."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response

from pilothouse.control import incidents, runs
from pilothouse.control.incidents import Correction, IncidentFilter, Report
from pilothouse.control.views import view
from pilothouse.domain.incidents import Severity
from pilothouse.web import effect_schemas, requests
from pilothouse.web.access import Caller, caller_of
from pilothouse.web.answers import Limit, answer, page
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["incidents"])

DEFAULT_TENANT = "default"


@router.post(
    "/incidents",
    status_code=201,
    openapi_extra=takes(requests.OpenIncident),
    responses=gives(effect_schemas.Incident, 201),
)
async def open_incident(request: Request, backend: BackendOf) -> Response:
    """Reports a bad effect: finds its siblings and freezes its run as a regression case."""
    body, caller = await read_model(request, requests.OpenIncident), caller_of(request)
    report = Report(body.effect, body.reason, Severity(body.severity), body.hours)
    found = await incidents.open_incident(backend.db, report, principal=caller.principal, tenant=caller.tenant)
    return answer(found, 201, {"Location": f"/api/v1/incidents/{found['id']}"})


@router.get("/incidents", responses=gives(effect_schemas.IncidentPage))
async def list_incidents(
    backend: BackendOf,
    *,
    state: Literal["open", "closed"] | None = None,
    severity: Severity | None = None,
    agent: str | None = None,
    tenant: str | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest incidents first."""
    wanted = IncidentFilter(state, severity, agent, tenant)
    rows = await incidents.list_incidents(backend.db, wanted, after=after, limit=limit + 1)
    return page([view(row) for row in rows], limit=limit, key="id")


@router.get("/incidents/{id}", responses=gives(effect_schemas.Incident))
async def get_incident(id: str, request: Request, backend: BackendOf) -> Response:
    """One incident with its effects and corrections."""
    return answer(await incidents.show_incident(backend.db, id, tenant=caller_of(request).tenant))


@router.get("/incidents/{id}/case", responses=gives(effect_schemas.RegressionCase))
async def get_case(id: str, request: Request, backend: BackendOf) -> Response:
    """The incident's run, up to its bad action, as a case for evaluations."""
    return answer(await incidents.case_of(backend.db, id, tenant=caller_of(request).tenant))


@router.post(
    "/incidents/{id}/correct", openapi_extra=takes(requests.CorrectEffect), responses=gives(effect_schemas.Incident)
)
async def correct_effect(id: str, request: Request, backend: BackendOf) -> Response:
    """Records what was done about one of its effects: by hand, or by a run that is submitted with this."""
    body, caller = await read_model(request, requests.CorrectEffect), caller_of(request)
    correction = Correction(body.effect, body.note, _request(body.run, caller))
    found = await incidents.correct(backend.db, id, correction, principal=caller.principal, tenant=caller.tenant)
    return answer(found)


@router.post(
    "/incidents/{id}/close", openapi_extra=takes(requests.CloseIncident), responses=gives(effect_schemas.Incident)
)
async def close_incident(id: str, request: Request, backend: BackendOf) -> Response:
    body, caller = await read_model(request, requests.CloseIncident), caller_of(request)
    found = await incidents.close_incident(backend.db, id, body.note, principal=caller.principal, tenant=caller.tenant)
    return answer(found)


def _request(wanted: requests.CorrectingRun | None, caller: Caller) -> runs.Request | None:
    if wanted is None:
        return None
    tenant = caller.tenant or DEFAULT_TENANT
    return runs.Request(wanted.agent, wanted.input, principal=caller.principal, tenant=tenant)
