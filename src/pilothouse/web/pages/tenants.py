"""Tenants: what there is of each. Only for admins of all tenants."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import tenants
from pilothouse.control.views import view
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/settings/tenants")
async def list_page(request: Request, backend: BackendOf) -> Response:
    return show(request, "tenants.html", tenants=[view(row) for row in await tenants.glance(backend.db)])
