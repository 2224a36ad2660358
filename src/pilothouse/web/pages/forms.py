"""Forms: what a page sends back, which only this server's own page can have made for this browser."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Annotated

from fastapi import Depends, Request, Response

from pilothouse.errors import Forbidden
from pilothouse.web.access import SESSION_COOKIE
from pilothouse.web.bodies import read_form

FORM_COOKIE = "pilothouse_form"

Form = dict[str, str]


def form_secret(request: Request) -> str:
    """What the tokens of a browser's forms follow from: its cookie, or a new one that `keep_secret` gives it."""
    made: str | None = getattr(request.state, "form_secret", None)
    if made is None:
        made = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        request.state.form_secret = made
    return made


def form_token(request: Request) -> str:
    """What each form of a page holds; no other site can know it, and it is worth nothing to another session."""
    return _token(form_secret(request), request)


def keep_secret(request: Request, answer: Response) -> None:
    """Gives the browser the secret that its page's forms were made with."""
    if request.cookies.get(FORM_COOKIE) != form_secret(request):
        set_cookie(request, answer, FORM_COOKIE, form_secret(request))


async def _read(request: Request) -> Form:
    form = await read_form(request)
    cookie = request.cookies.get(FORM_COOKIE)
    if cookie is None or not hmac.compare_digest(form.pop("form", "").encode(), _token(cookie, request).encode()):
        raise Forbidden("this form was not made by this page for you; load the page again and repeat what you did")
    return form


FormOf = Annotated[Form, Depends(_read)]
"""A page's parameter: the fields of its form. Raises Forbidden for a form that another page made."""


def _token(secret: str, request: Request) -> str:
    session = request.cookies.get(SESSION_COOKIE, "")
    return hmac.new(secret.encode(), session.encode(), hashlib.sha256).hexdigest()


def set_cookie(request: Request, answer: Response, name: str, value: str, *, seconds: int | None = None) -> None:
    """A cookie that scripts cannot read and other sites cannot send along with a form."""
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=request.url.scheme == "https")
