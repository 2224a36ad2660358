"""Dead letters: failed runs that nobody has dealt with, newest first; singly or by filter redriven or dismissed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from pilothouse.control import dead, run_lists
from pilothouse.control.dead import DeadFilter
from pilothouse.control.views import view
from pilothouse.web.access import caller_of
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.run_filters import command_of
from pilothouse.web.pages.run_steps import error_of
from pilothouse.web.pages.runs import agent_names
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50
LONGEST = 200


@router.get("/dead")
async def list_page(request: Request, backend: BackendOf, after: str | None = None) -> Response:
    caller, names = caller_of(request), ("agent", "error_type", "tenant")
    asked = {name: text for name in names if (text := request.query_params.get(name, "").strip()[:LONGEST])}
    if caller.tenant is not None:
        asked.pop("tenant", None)
    wanted = DeadFilter(asked.get("agent"), caller.tenant or asked.get("tenant"), asked.get("error_type"))
    found = await dead.list_dead(backend.db, wanted, after=after, limit=SHOWN + 1)
    rows = [_shown(row) for row in found[:SHOWN]]
    return show(
        request,
        "dead.html",
        rows=rows,
        fields={name: asked.get(name, "") for name in names},
        is_asked=bool(asked),
        is_first=after is None,
        agents=await agent_names(backend),
        older=_address("/dead", asked, after=rows[-1]["id"]) if len(found) > SHOWN else None,
        newest=_address("/dead", asked),
        all_of={verb: _address("/runs/bulk", asked, verb=verb, back="dead") for verb in ("redrive", "dismiss")},
        commands=[command_of(f"dead {verb}", asked, or_all=verb != "list") for verb in ("list", "redrive", "dismiss")],
        shows_tenant=any(row["tenant"] != run_lists.DEFAULT_TENANT for row in rows),
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    run = view(row)
    return run | {"error": error_of(run["error"])}


def _address(path: str, asked: dict[str, str], **more: Any) -> str:
    query = urlencode({**asked, **more})
    return f"{path}?{query}" if query else path
