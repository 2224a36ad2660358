"""Circuit breakers: which dependencies are left alone for now."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pilothouse.control import breakers
from pilothouse.control.views import view
from pilothouse.web import schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["breakers"])


@router.get("/breakers", responses=gives(schemas.BreakerList))
async def list_breakers(backend: BackendOf) -> Response:
    """Every dependency that has ever failed, by name: models as `model:PROVIDER:NAME`, tools as `tool:NAME`."""
    rows = await breakers.list_breakers(backend.db)
    return answer({"items": [view(breakers.public(row)) for row in rows], "next": None})
