"""Incidents: bad actions, their siblings, what was done about them, and the case that came of each."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from pilothouse.control import incidents
from pilothouse.control.incidents import Correction, IncidentFilter
from pilothouse.control.views import view
from pilothouse.domain.incidents import Severity
from pilothouse.errors import Refused
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import Form, FormOf
from pilothouse.web.pages.paging import next_page
from pilothouse.web.pages.showing import PageRoute, redirect, refusal_status, show
from pilothouse.web.pages.wording import pretty

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50
STATES = ("open", "closed", "all")


@router.get("/incidents")
async def list_page(
    request: Request, backend: BackendOf, state: str = "open", severity: str = "", after: str | None = None
) -> Response:
    chosen = state if state in STATES else "open"
    wanted = IncidentFilter(
        None if chosen == "all" else chosen,
        severity if severity in set(Severity) else None,
        tenant=caller_of(request).tenant,
    )
    rows = await incidents.list_incidents(backend.db, wanted, after=after, limit=SHOWN + 1)
    return show(
        request,
        "incidents.html",
        items=[view(row) for row in rows[:SHOWN]],
        state=chosen,
        states=STATES,
        severity=severity,
        severities=list(Severity),
        older=next_page(request, rows[SHOWN - 1]["id"]) if len(rows) > SHOWN else None,
    )


@router.get("/incidents/{id}")
async def incident_page(id: str, request: Request, backend: BackendOf) -> Response:
    return await _show(request, backend, id)


@router.get("/incidents/{id}/case.json")
async def take_case(id: str, request: Request, backend: BackendOf) -> Response:
    """The case as a file."""
    case = await incidents.case_of(backend.db, id, tenant=caller_of(request).tenant)
    headers = {
        "Content-Disposition": f'attachment; filename="case-{quote(id)}.json"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(pretty(case), headers=headers, media_type="application/json")


@router.post("/incidents/{id}")
async def act_on_page(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Records a correction by hand, or closes it."""
    caller, note = caller_of(request), form.get("note", "")
    who: dict[str, Any] = {"principal": caller.principal, "tenant": caller.tenant}
    try:
        if form.get("do") == "close":
            await incidents.close_incident(backend.db, id, note, **who)
            said = "The incident is closed."
        else:
            await incidents.correct(backend.db, id, Correction(form.get("effect", ""), note), **who)
            said = "The correction was recorded; it is an effect of its own."
    except Refused as error:
        return await _show(request, backend, id, form, error)
    return redirect(request, f"/incidents/{id}", said=said)


async def _show(
    request: Request, backend: Backend, id: str, form: Form | None = None, error: Refused | None = None
) -> Response:
    tenant = caller_of(request).tenant
    incident = await incidents.show_incident(backend.db, id, tenant=tenant)
    corrected = {each["effect_id"] for each in incident["corrections"]}
    return show(
        request,
        "incident.html",
        200 if error is None else refusal_status(error),
        incident=incident,
        case=await incidents.case_of(backend.db, id, tenant=tenant),
        corrected=corrected,
        refused=None if error is None else str(error),
        form={"note": "", "effect": "", "do": "", **(form or {})},
    )
