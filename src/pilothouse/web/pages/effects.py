"""Effects: those that nobody knows the outcome of first, then those that failed, then the latest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from pilothouse import payloads
from pilothouse.control import agents, effects, incidents
from pilothouse.control.effects import EffectFilter, Resolution
from pilothouse.control.incidents import Report
from pilothouse.domain.incidents import Severity
from pilothouse.errors import FieldError, InvalidInput, Refused
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf, backend_of
from pilothouse.web.pages.forms import Form, FormOf
from pilothouse.web.pages.paging import next_page
from pilothouse.web.pages.showing import PageRoute, redirect, refusal_status, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50
HEAD = 5
"""Of the failed ones, above the latest."""

STATES = ("unknown", "failed", "succeeded")


@router.get("/effects")
async def list_page(request: Request, backend: BackendOf) -> Response:
    """All of them, or those that the address asks for: `state`, `agent`, `tool`, `run`."""
    tenant, db = caller_of(request).tenant, backend.db
    asked = {name: request.query_params.get(name, "").strip() for name in ("state", "agent", "tool", "run")}
    after = request.query_params.get("after")
    wanted = EffectFilter(
        asked["run"] or None,
        asked["agent"] or None,
        asked["tool"] or None,
        tenant,
        is_open=asked["state"] == "unknown",
        state=asked["state"] if asked["state"] in STATES[1:] else None,
    )
    rows = await effects.list_effects(db, wanted, after=after, limit=SHOWN + 1)
    shown = [effects.public(row) for row in rows[:SHOWN]]
    is_front = after is None and not any(asked.values())
    failed = await effects.list_effects(db, EffectFilter(tenant=tenant, state="failed"), limit=HEAD) if is_front else []
    return show(
        request,
        "effects.html",
        unknown=[each for each in shown if each["state"] == "unknown"],
        failed=[effects.public(row) for row in failed],
        items=[each for each in shown if each["state"] != "unknown"],
        filters=asked,
        states=STATES,
        agents=[row["name"] for row in await agents.list_agents(db)],
        older=next_page(request, effects.place_of(rows[SHOWN - 1])) if len(rows) > SHOWN else None,
    )


@router.get("/effects/{id}")
async def effect_page(id: str, request: Request, backend: BackendOf) -> Response:
    return await _show(request, backend, id)


@router.post("/effects/{id}")
async def act_on_page(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Says whether it took place, or reports it as an incident."""
    try:
        if form.get("do") == "report":
            return await _report(request, id, form)
        await _resolve(request, id, form)
    except Refused as error:
        return await _show(request, backend, id, form, error)
    return redirect(request, f"/effects/{id}", said="What you know of it was recorded; its run goes on accordingly.")


async def _resolve(request: Request, id: str, form: Form) -> None:
    caller, backend = caller_of(request), backend_of(request)
    if form.get("happened") not in ("yes", "no"):
        raise InvalidInput("say whether it happened", [FieldError("happened", "yes or no")])
    said = Resolution(form["happened"] == "yes", form.get("note", ""), _result(form.get("result", "")))
    await effects.resolve_effect(
        backend.db, id, said, principal=caller.principal, calendar=backend.settings.calendar, tenant=caller.tenant
    )


def _result(text: str) -> Any:
    try:
        return payloads.decode(text) if text.strip() else None
    except ValueError as error:
        raise InvalidInput(f"the result is not JSON: {error}", [FieldError("result", "not JSON")]) from error


async def _report(request: Request, id: str, form: Form) -> Response:
    caller, hours = caller_of(request), form.get("hours", "")
    if not (hours.isascii() and hours.isdecimal() and len(hours) < 7):
        raise InvalidInput(f"hours is a number of hours, not {hours!r}", [FieldError("hours", "no number")])
    severity = Severity.MINOR if form.get("severity") == Severity.MINOR else Severity.CRITICAL
    report = Report(id, form.get("reason", ""), severity, int(hours))
    db = backend_of(request).db
    found = await incidents.open_incident(db, report, principal=caller.principal, tenant=caller.tenant)
    return redirect(request, f"/incidents/{quote(found['id'])}", said="The incident is open; its siblings are below.")


async def _show(
    request: Request, backend: Backend, id: str, form: Mapping[str, str] | None = None, error: Refused | None = None
) -> Response:
    effect = await effects.show_effect(backend.db, id, tenant=caller_of(request).tenant)
    return show(
        request,
        "effect.html",
        200 if error is None else refusal_status(error),
        effect=effect,
        severities=list(Severity),
        refused=None if error is None else str(error),
        form={"note": "", "result": "", "reason": "", "hours": str(incidents.HOURS), **(form or {})},
    )
