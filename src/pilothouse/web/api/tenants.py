"""Tenants: what there is of each; take a copy of it, erase it. Only for admins of all tenants."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from pilothouse.control import Database, erasures, exports, tenants
from pilothouse.control.views import view
from pilothouse.errors import FieldError
from pilothouse.web import requests, schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import PROBLEMS, gives, takes
from pilothouse.web.problems import invalid

router = APIRouter(prefix="/api/v1", tags=["tenants"])

CHUNK_BYTES = 65_536
PACKED = "application/gzip"


@router.get("/tenants", responses=gives(schemas.TenantList))
async def list_tenants(backend: BackendOf) -> Response:
    """Every tenant by name, with how many runs are in the run log and when it was last active."""
    return answer({"items": [view(row) for row in await tenants.list_tenants(backend.db)], "next": None})


@router.get("/tenants/{name}", responses=gives(schemas.TenantDetails))
async def get_tenant(name: str, backend: BackendOf) -> Response:
    """One tenant, with its rows by table and its latest erasure, if any."""
    row = await tenants.show_tenant(backend.db, name)
    return answer(view(row) | {"erasure": view(row["erasure"]) if row["erasure"] else None})


@router.post(
    "/tenants/{name}/erase",
    status_code=202,
    openapi_extra=takes(requests.EraseTenant),
    responses=gives(schemas.Erasure, 202),
)
async def erase_tenant(name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Begins to erase everything of a tenant, for good; the scheduler carries it out. Asking again changes nothing."""
    body = await read_model(request, requests.EraseTenant)
    if body.confirm != name:
        raise invalid([FieldError("confirm", f"must be the tenant's name, {name!r}: this cannot be undone")])
    begun = await erasures.begin(backend.db, name, principal=principal, cancel=body.cancel, reason=body.reason)
    return answer(view(begun), 202, {"Location": f"/api/v1/tenants/{name}"})


@router.get(
    "/tenants/{name}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {PACKED: {"schema": {"type": "string", "format": "binary"}}}}, **PROBLEMS},
)
async def export_tenant(name: str, backend: BackendOf) -> Response:
    """Every row of a tenant, and its large payloads, as compressed JSON lines from one snapshot."""
    file = await asyncio.to_thread(_exported, backend.db, name)
    headers = {"Content-Disposition": 'attachment; filename="tenant.jsonl.gz"'}
    return StreamingResponse(_chunks(file), media_type=PACKED, headers=headers)


def _exported(db: Database, tenant: str) -> IO[bytes]:
    """The whole export, in a file that nobody else can see and that goes with its last reader.

    A snapshot is not held open for as long as a slow reader takes.
    """
    with tempfile.TemporaryDirectory(prefix="pilothouse-export-") as folder:
        path = Path(folder) / "tenant.jsonl.gz"
        exports.export_tenant(db, tenant, path)
        return path.open("rb")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
