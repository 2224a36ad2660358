"""Kill switches: what is stopped, by whom and why; trip and reset them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import Database, switches
from pilothouse.control.switches import TripOrder
from pilothouse.control.views import view
from pilothouse.domain.switches import SwitchMode
from pilothouse.web import requests, switch_schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["switches"])


@router.get("/switches", responses=gives(switch_schemas.SwitchList))
async def list_switches(backend: BackendOf) -> Response:
    """The tripped switches, the latest first, and the live workers that do not act by each yet."""
    live, disabled = await switches.count_live_workers(backend.db)
    shown = {"items": await shown_switches(backend.db), "next": None}
    return answer(shown | {"live_workers": live, "disabled_workers": disabled})


@router.get("/switches/{scope}", responses=gives(switch_schemas.Switch))
async def get_switch(scope: str, backend: BackendOf) -> Response:
    return answer(view(await switches.show_switch(backend.db, scope)))


@router.post("/switches", openapi_extra=takes(requests.Trip), responses=gives(switch_schemas.TrippedSwitch))
async def trip_switch(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Stops everything of a scope, on all workers; a tripped switch takes the new mode and reason."""
    body = await read_model(request, requests.Trip)
    order = TripOrder(body.scope, SwitchMode(body.mode), body.reason)
    return answer(view(await switches.trip_switch(backend.db, order, principal=principal)))


@router.delete("/switches/{scope}", responses=gives(switch_schemas.ResetSwitch))
async def reset_switch(scope: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Lets what the switch has stopped go on."""
    return answer(view(await switches.reset_switch(backend.db, scope, principal=principal)))


async def shown_switches(db: Database) -> list[dict[str, Any]]:
    return [view(row) for row in await switches.list_switches(db)]
