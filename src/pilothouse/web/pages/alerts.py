"""Alerts: what fires, what to do about it, what each rule measures now, and silences."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import alerts
from pilothouse.control.alerts import AlertFilter, SilenceOrder
from pilothouse.domain.alerts import Matcher
from pilothouse.errors import InvalidInput
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import Form, FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

EPISODES_SHOWN = 50
HOURS = ("1", "4", "24", "168")
SILENCE = {"rule": "*", "subject": "*", "agent": "*", "hours": "1", "reason": ""}


@router.get("/alerts")
async def list_page(request: Request, backend: BackendOf, after: str | None = None) -> Response:
    return await _list(request, backend, after=after)


@router.get("/alerts/{id}")
async def show_page(id: str, request: Request, backend: BackendOf) -> Response:
    return show(request, "alert.html", alert=await alerts.show_alert(backend.db, id))


@router.post("/alerts/{id}/acknowledge")
async def acknowledge(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    principal = caller_of(request).principal
    await alerts.acknowledge(backend.db, id, principal=principal, reason=form.get("reason", ""))
    return redirect(request, f"/alerts/{id}", "You look after this alert; nobody is told of it again.")


@router.post("/alerts/silences")
async def silence(request: Request, backend: BackendOf, form: FormOf) -> Response:
    asked = SILENCE | {name: form.get(name, "").strip() or usual for name, usual in SILENCE.items()}
    try:
        hours = float(asked["hours"])
    except ValueError:
        hours = 0.0
    order = SilenceOrder(Matcher(asked["rule"], asked["subject"], asked["agent"]), 60 * hours, asked["reason"])
    try:
        await alerts.silence(backend.db, order, principal=caller_of(request).principal)
    except InvalidInput as error:
        return await _list(request, backend, form=asked, refused=str(error))
    return redirect(request, "/alerts", "Messages of matching alerts are kept back; they fire all the same.")


@router.post("/alerts/silences/{id}/end")
async def end_silence(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await alerts.unsilence(backend.db, id, principal=caller_of(request).principal)
    return redirect(request, "/alerts", "The silence has ended.")


async def _list(
    request: Request, backend: Backend, *, after: str | None = None, form: Form = SILENCE, refused: str = ""
) -> Response:
    settings = backend.settings
    live = [] if after else await alerts.live_alerts(backend.db)
    rows = await alerts.list_alerts(backend.db, AlertFilter(state="resolved"), after=after, limit=EPISODES_SHOWN + 1)
    rules = [] if after else await alerts.standings(backend.db, settings.alert_rules, settings.calendar)
    return show(
        request,
        "alerts.html",
        422 if refused else 200,
        live=[alerts.public(row) for row in live],
        over=[alerts.public(row) for row in rows[:EPISODES_SHOWN]],
        older=f"/alerts?after={rows[EPISODES_SHOWN - 1]['id']}" if len(rows) > EPISODES_SHOWN else None,
        is_first=after is None,
        rules=_by_urgency(rules),
        silences=[alerts.public(row) for row in await alerts.list_silences(backend.db)],
        hours=HOURS,
        form=form,
        refused=refused,
    )


def _by_urgency(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = ("firing", "pending", "well", "off")
    return sorted(rules, key=lambda rule: order.index(rule["state"]))
