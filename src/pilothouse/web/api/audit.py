"""The audit: who did what to which row, when and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from pilothouse.control import audit, seals
from pilothouse.control.views import view
from pilothouse.web import schemas
from pilothouse.web.answers import Limit, answer, page
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import MAX_INTEGER
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["audit"])


@router.get("/audit", responses=gives(schemas.AuditPage))
async def list_audit(
    backend: BackendOf,
    before: Annotated[int | None, Query(ge=0, le=MAX_INTEGER)] = None,
    action: str | None = None,
    tenant: str | None = None,
    entity_id: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest records first."""
    rows = await audit.tail(
        backend.db, limit=limit + 1, before=before, action=action, tenant=tenant, entity_id=entity_id
    )
    return page([view(row) for row in rows], limit=limit, key="seq")


@router.get("/audit/verification", responses=gives(schemas.Verification))
async def verify_audit(backend: BackendOf, anchor: str | None = None) -> Response:
    """Holds the audit against its seals. With `anchor`, the hash of a seal noted before, that seal must be there."""
    done = await seals.verify(backend.db, anchor=anchor)
    return answer(asdict(done) | {"holds": done.holds})


@router.get("/audit/{seq}", responses=gives(schemas.AuditRecord))
async def get_audit_record(seq: Annotated[int, Path(ge=0, le=MAX_INTEGER)], backend: BackendOf) -> Response:
    return answer(view(await audit.show(backend.db, seq)))
