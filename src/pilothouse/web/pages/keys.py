"""API keys: who has one, with a form that makes one and buttons that revoke them. Only for admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import keys
from pilothouse.control.instants import now
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import InvalidInput
from pilothouse.web.access import caller_of
from pilothouse.web.api.keys import shown
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import Form, FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

NEW_KEY = {"name": "", "role": "operator", "tenant": "", "days": ""}
DAY_US = 86_400_000_000
MAX_DAYS = 3650


@router.get("/settings/keys")
async def list_page(request: Request, backend: BackendOf) -> Response:
    return await _list(request, backend)


@router.post("/settings/keys")
async def create(request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Shows the new key on the page that answers, and never again."""
    asked = {name: form.get(name, usual).strip() for name, usual in NEW_KEY.items()}
    try:
        made = await keys.create_key(
            backend.db,
            asked["name"],
            _role(asked["role"]),
            tenant=asked["tenant"] or None,
            expires_at=await _expiry(backend, asked["days"]),
            principal=caller_of(request).principal,
        )
    except InvalidInput as error:
        return await _list(request, backend, form=asked, refused=str(error))
    return await _list(request, backend, made=made.text)


@router.post("/settings/keys/{id}/revoke")
async def revoke(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await keys.revoke_key(backend.db, id, principal=caller_of(request).principal)
    return redirect(request, "/settings/keys", f"Key {id} opens nothing any more.")


async def _list(
    request: Request, backend: Backend, *, made: str = "", form: Form = NEW_KEY, refused: str = ""
) -> Response:
    rows: list[dict[str, Any]] = [shown(row) for row in await keys.list_keys(backend.db)]
    status = 422 if refused else 201 if made else 200
    return show(
        request, "keys.html", status, keys=rows, made=made, form=form, refused=refused, roles=[*map(str, KeyRole)]
    )


def _role(text: str) -> KeyRole:
    try:
        return KeyRole(text)
    except ValueError as error:
        raise InvalidInput(f"role is {text!r}; it is one of {', '.join(KeyRole)}") from error


async def _expiry(backend: Backend, days: str) -> int | None:
    if not days:
        return None
    if not days.isdecimal() or not 0 < int(days) <= MAX_DAYS:
        raise InvalidInput(f"days is {days!r}; it is 1 to {MAX_DAYS}, or empty for a key that does not expire")
    return await backend.db.read(now) + int(days) * DAY_US
