"""Settings: each with its value and where it comes from; passwords are masked."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.config import Settings, describe_settings, environment_names
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/settings")
async def list_page(request: Request) -> Response:
    """As a process that starts now would read them."""
    shown = [
        setting._asdict()
        | {"told": Settings.model_fields[setting.name].description, "variable": environment_names(setting.name)[0]}
        for setting in describe_settings()
    ]
    changed = [setting for setting in shown if setting["source"] != "default"]
    usual = [setting for setting in shown if setting["source"] == "default"]
    return show(request, "settings.html", groups=[("Changed here", changed), ("As they come", usual)])
