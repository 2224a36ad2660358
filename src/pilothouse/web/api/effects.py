"""Effects: calls that change the world; say of those of unknown outcome whether they took place."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import effects
from pilothouse.control.effects import EffectFilter, Resolution
from pilothouse.web import effect_schemas, requests, schemas
from pilothouse.web.access import caller_of
from pilothouse.web.answers import Limit, answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import Instant, read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["effects"])


@router.get("/effects", responses=gives(effect_schemas.EffectPage))
async def list_effects(
    backend: BackendOf,
    *,
    unknown: bool = False,
    run: str | None = None,
    agent: str | None = None,
    tool: str | None = None,
    tenant: str | None = None,
    since: Instant | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """Those of unknown outcome first, then the newest."""
    wanted = EffectFilter(run, agent, tool, tenant, since, is_open=unknown)
    rows = await effects.list_effects(backend.db, wanted, after=after, limit=limit + 1)
    following = effects.place_of(rows[limit - 1]) if len(rows) > limit else None
    return answer({"items": [effects.public(row) for row in rows[:limit]], "next": following})


@router.get("/effects/{id}", responses=gives(schemas.Effect))
async def get_effect(id: str, request: Request, backend: BackendOf) -> Response:
    """One effect with its exact arguments, its calls, and the question that its run asks about it."""
    return answer(await effects.show_effect(backend.db, id, tenant=caller_of(request).tenant))


@router.post("/effects/{id}/resolve", openapi_extra=takes(requests.Resolve), responses=gives(schemas.Effect))
async def resolve_effect(id: str, request: Request, backend: BackendOf) -> Response:
    """Says whether it took place; its run goes on accordingly. The same answer again changes nothing."""
    body, caller = await read_model(request, requests.Resolve), caller_of(request)
    found = await effects.resolve_effect(
        backend.db,
        id,
        Resolution(body.happened, body.note, body.result),
        principal=caller.principal,
        calendar=backend.settings.calendar,
        tenant=caller.tenant,
    )
    return answer(found)
