"""Schedules: when agents run by themselves, what their fires came to, and the buttons that pause, resume and fire."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from pilothouse.control import audit, schedules
from pilothouse.control.views import view
from pilothouse.web.access import caller_of
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

FIRES_SHOWN = 40


@router.get("/schedules")
async def list_page(request: Request, backend: BackendOf) -> Response:
    rows = await schedules.list_schedules(backend.db)
    return show(request, "schedules.html", schedules=[view(schedules.public(row)) for row in rows])


@router.get("/schedules/{name}")
async def show_page(name: str, request: Request, backend: BackendOf) -> Response:
    schedule = view(schedules.public(await schedules.show_schedule(backend.db, name)))
    rows = await audit.tail(backend.db, limit=FIRES_SHOWN, entity_id=name)
    fires = [_told(view(row)) for row in rows if row["entity"] == "schedule"]
    return show(request, "schedule.html", schedule=schedule, fires=fires)


@router.post("/schedules/{name}/pause")
async def pause(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await schedules.pause_schedule(backend.db, name, principal=caller_of(request).principal)
    return _back(request, name, form, f"Schedule {name} is paused.")


@router.post("/schedules/{name}/resume")
async def resume(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await schedules.resume_schedule(backend.db, name, principal=caller_of(request).principal)
    return _back(request, name, form, f"Schedule {name} fires again.")


@router.post("/schedules/{name}/fire")
async def fire(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    submitted = await schedules.fire_schedule(backend.db, name, principal=caller_of(request).principal)
    return _back(request, name, form, f"Schedule {name} fired: run {submitted.id}.")


def _back(request: Request, name: str, form: dict[str, str], said: str) -> Response:
    """To the page that the form was on."""
    path = "/schedules" if form.get("from") == "list" else f"/schedules/{quote(name, safe='')}"
    return redirect(request, path, said)


def _told(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"what": record["action"].removeprefix("schedule.")}
