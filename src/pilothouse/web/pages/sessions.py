"""Where people sign in with an API key, and out again."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from pilothouse.web.access import SESSION_COOKIE
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.forms import FormOf, set_cookie
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

OWN_PATH = re.compile(r"/(?![/\\])[^\x00-\x1f\\]*")


@router.get("/sign-in")
async def sign_in_page(request: Request, next: str = "/") -> Response:
    return show(request, "sign_in.html", target=next, problem="")


@router.post("/sign-in")
async def sign_in(request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Gives the browser a session, and not the key."""
    target = form.get("next", "")
    session = await backend.sessions.open(form.get("key", "").strip())
    if session is None:
        return show(request, "sign_in.html", 401, target=target, problem="This key is unknown, revoked or expired.")
    answer = redirect(request, target if OWN_PATH.fullmatch(target) else "/")
    seconds = int(backend.sessions.lifetime_us / 1_000_000)
    set_cookie(request, answer, SESSION_COOKIE, session, seconds=seconds)
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, form: FormOf) -> Response:
    answer = redirect(request, "/sign-in")
    answer.delete_cookie(SESSION_COOKIE)
    return answer
