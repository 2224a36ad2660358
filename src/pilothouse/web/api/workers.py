"""Workers: who runs, what each holds, and how to make one finish and leave."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from pilothouse.control import readiness, workers
from pilothouse.control.views import view
from pilothouse.web import schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import Limit, answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["workers"])


@router.get("/workers", responses=gives(schemas.WorkerList))
async def list_workers(backend: BackendOf, limit: Limit = 50) -> Response:
    """Those that hold a lease first, then the latest of the others."""
    rows = await workers.list_workers(backend.db, limit=limit)
    return answer({"items": [shown_worker(row) for row in rows], "next": None})


@router.post("/workers/{id}/drain", responses=gives(schemas.Worker))
async def drain_worker(id: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Asks a worker to finish what runs, claim nothing and exit."""
    return answer(view(await workers.drain_worker(backend.db, id, principal=principal)))


def shown_worker(row: dict[str, Any]) -> dict[str, Any]:
    return view(row) | {"is_live": readiness.is_live(row)}
