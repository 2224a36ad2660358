"""Kill switches: what is stopped and whether everybody acts by it; trip one, reset one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import names, switches
from pilothouse.control.switches import EFFECT_WINDOW_US, TripOrder
from pilothouse.control.views import view
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.switches import GLOBAL, SwitchMode
from pilothouse.errors import FieldError, InvalidInput, Refused
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.bodies import MAX_REASON_LENGTH
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, refusal_status, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

MODES = {
    SwitchMode.HOLD: "what runs stops before its next effect, and goes on after the reset",
    SwitchMode.DRAIN: "what runs finishes; nothing new is claimed",
    SwitchMode.ABORT: "submits are refused too, and what runs is given back at once",
}


@router.get("/switches")
async def switches_page(request: Request, backend: BackendOf, scope: str = "") -> Response:
    return await _show(request, backend, {"scope": scope})


@router.post("/switches")
async def trip_on_page(request: Request, backend: BackendOf, form: FormOf) -> Response:
    try:
        order = TripOrder(form.get("scope", "").strip(), _mode(form), form.get("reason", "")[:MAX_REASON_LENGTH])
        row = await switches.trip_switch(backend.db, order, principal=caller_of(request).principal)
    except Refused as error:
        return await _show(request, backend, form, str(error), refusal_status(error))
    note = f" Note: {row['note']}." if row["note"] else ""
    return redirect(request, "/switches", said=f"Switch {row['scope']} is tripped ({row['mode']}).{note}")


@router.post("/switches/reset")
async def reset_on_page(request: Request, backend: BackendOf, form: FormOf) -> Response:
    principal = caller_of(request).principal
    row = await switches.reset_switch(
        backend.db, form.get("scope", ""), principal=principal, reason=form.get("reason", "")
    )
    told = f"Switch {row['scope']} was reset; {row['released']} runs that it held may go on."
    return redirect(request, "/switches", said=told)


def _mode(form: Mapping[str, str]) -> SwitchMode:
    try:
        return SwitchMode(form.get("mode", SwitchMode.HOLD))
    except ValueError as error:
        raise InvalidInput("mode: hold, drain or abort", [FieldError("mode", "unknown")]) from error


async def _show(
    request: Request, backend: Backend, form: Mapping[str, str], refused: str = "", status: int = 200
) -> Response:
    db = backend.db
    rows = await switches.list_switches(db)
    live, disabled = await switches.count_live_workers(db)
    return show(
        request,
        "switches.html",
        status,
        switches=[await _shown(backend, row) for row in rows],
        epoch=max((row["epoch"] for row in rows), default=None),
        live=live,
        disabled=disabled,
        scopes=await _scopes(backend),
        modes=MODES,
        form={"scope": "", "mode": "hold", "reason": "", **form},
        refused=refused,
    )


async def _shown(backend: Backend, row: dict[str, Any]) -> dict[str, Any]:
    """A switch with the calls around its trip, while that is the question."""
    is_fresh = backend.db.clock.now_us() - row["tripped_at"] < EFFECT_WINDOW_US
    before, after = await switches.look_around(backend.db, row) if is_fresh else (None, None)
    around = {"before": view(before) if before else None, "after": view(after) if after else None}
    return view(row) | around | {"is_fresh": is_fresh}


async def _scopes(backend: Backend) -> list[str]:
    """What may be meant, for the field that suggests."""
    known = await names.known_names(backend.db)
    found = [("agent", known.agents), ("tool", known.tools), ("lane", LANE_ORDER), ("tenant", known.tenants)]
    return [GLOBAL, *(f"{kind}:{name}" for kind, each in (*found, ("version", known.versions)) for name in each)]
