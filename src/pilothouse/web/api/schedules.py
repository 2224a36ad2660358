"""Schedules: when agents run by themselves; pause, resume and fire them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import schedules
from pilothouse.control.views import view
from pilothouse.web import schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["schedules"])


@router.get("/schedules", responses=gives(schemas.ScheduleList))
async def list_schedules(backend: BackendOf, tenant: str | None = None) -> Response:
    """All schedules by name, with the instants at which they fire next."""
    rows = await schedules.list_schedules(backend.db, tenant=tenant)
    return answer({"items": [_shown(row) for row in rows], "next": None})


@router.get("/schedules/{name}", responses=gives(schemas.Schedule))
async def get_schedule(name: str, backend: BackendOf) -> Response:
    return answer(_shown(await schedules.show_schedule(backend.db, name)))


@router.post("/schedules/{name}/pause", responses=gives(schemas.Schedule))
async def pause_schedule(name: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Lets it fire no more until it is resumed."""
    return answer(_shown(await schedules.pause_schedule(backend.db, name, principal=principal)))


@router.post("/schedules/{name}/resume", responses=gives(schemas.Schedule))
async def resume_schedule(name: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Lets it fire again, from its next instant on; what would have fired meanwhile does not."""
    return answer(_shown(await schedules.resume_schedule(backend.db, name, principal=principal)))


@router.post("/schedules/{name}/fire", status_code=202, responses=gives(schemas.Submitted, 202))
async def fire_schedule(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Fires now. With an Idempotency-Key the same request again gives the same run."""
    key = request.headers.get("idempotency-key")
    submitted = await schedules.fire_schedule(backend.db, name, principal=principal, key=key)
    url = f"/api/v1/runs/{submitted.id}"
    told: dict[str, Any] = {"id": submitted.id, "state": submitted.state, "url": url, "created": submitted.is_new}
    return answer(told, 202, {"Location": url})


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return view(schedules.public(row))
