"""The audit: who did what to which row, when and why; search it, and hold it against its seals."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from pilothouse.control import audit, seals
from pilothouse.control.audit import Search
from pilothouse.control.views import view
from pilothouse.errors import FieldError
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import MAX_INTEGER
from pilothouse.web.pages.showing import PageRoute, show
from pilothouse.web.problems import invalid

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50
FIELDS = ("action", "principal", "tenant", "entity_id")


@router.get("/audit")
async def list_page(request: Request, backend: BackendOf) -> Response:
    fields = {name: request.query_params.get(name, "").strip() for name in FIELDS}
    before = _number(request.query_params.get("before", ""))
    wanted = Search(**{name: value or None for name, value in fields.items()})
    found = await audit.search(backend.db, wanted, before=before, limit=SHOWN)
    asked = {name: value for name, value in fields.items() if value}
    older = None if found.next is None else f"/audit?{urlencode(asked | {'before': str(found.next)})}"
    return show(
        request,
        "audit.html",
        records=[view(row) for row in found.rows],
        fields=fields,
        is_asked=bool(asked),
        is_first=before is None,
        is_cut=found.is_cut,
        older=older,
    )


@router.get("/audit/verification")
async def verification_page(request: Request, backend: BackendOf) -> Response:
    """Walks over the whole audit."""
    return show(request, "verification.html", done=await seals.verify(backend.db))


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) > MAX_INTEGER:
        raise invalid([FieldError("before", "must be the number of a record")])
    return int(text)
