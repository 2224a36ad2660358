"""API keys: make, list and revoke them. Only for admins; the first one is made on the command line."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import keys
from pilothouse.control.views import view
from pilothouse.domain.keys import KeyRole
from pilothouse.web import requests, schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["keys"])


@router.get("/keys", responses=gives(schemas.KeyList))
async def list_keys(backend: BackendOf) -> Response:
    """All keys; their secrets are nowhere to be seen."""
    return answer({"items": [shown(row) for row in await keys.list_keys(backend.db)], "next": None})


@router.post("/keys", status_code=201, openapi_extra=takes(requests.NewKey), responses=gives(schemas.CreatedKey, 201))
async def create_key(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Makes a key. The answer shows it once."""
    body = await read_model(request, requests.NewKey)
    made = await keys.create_key(
        backend.db,
        body.name,
        KeyRole(body.role),
        tenant=body.tenant,
        expires_at=body.expires_at,
        principal=principal,
    )
    return answer({"id": made.id, "key": made.text}, 201, {"Location": f"/api/v1/keys/{made.id}"})


@router.post("/keys/{id}/revoke", responses=gives(schemas.KeyRevoked))
async def revoke_key(id: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """From now on the key opens nothing."""
    await keys.revoke_key(backend.db, id, principal=principal)
    return answer({"id": id, "state": "revoked"})


def shown(row: dict[str, Any]) -> dict[str, Any]:
    return view({name: value for name, value in row.items() if name != "now"}) | {"state": keys.standing(row)}
