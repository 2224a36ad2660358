"""How pages are shown: one template each, around it the frame; what users wrote is text, and no script is inline."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Coroutine
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from pilothouse import __version__
from pilothouse.domain.keys import KeyRole, includes
from pilothouse.errors import PilothouseError
from pilothouse.web.access import LOCAL, NOBODY, Caller
from pilothouse.web.pages import wording
from pilothouse.web.pages.forms import form_token, keep_secret, set_cookie
from pilothouse.web.pages.static import address
from pilothouse.web.problems import Problem, problem_of

if TYPE_CHECKING:
    import jinja2

SAID_COOKIE = "pilothouse_said"
SAID_SECONDS = 30
WORTH_PACKING = 1000

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

MENU: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...] = (
    (
        "Work",
        (
            ("Overview", "/", False),
            ("Runs", "/runs", True),
            ("Dead letters", "/dead", True),
            ("Approvals", "/approvals", True),
            ("Agents", "/agents", True),
            ("Schedules", "/schedules", False),
        ),
    ),
    (
        "Safety",
        (
            ("Alerts", "/alerts", False),
            ("Budgets", "/budgets", False),
            ("Effects", "/effects", False),
            ("Switches", "/switches", False),
            ("Incidents", "/incidents", False),
        ),
    ),
    (
        "Platform",
        (
            ("Workers", "/workers", False),
            ("Audit", "/audit", False),
            ("Runbooks", "/runbooks", False),
            ("Settings", "/settings", False),
        ),
    ),
)
"""Groups of (title, path, whether keys of one tenant may open it)."""


def show(request: Request, template: str, status: int = 200, **facts: Any) -> Response:
    """The page of a template, with the caller's rights, the menu and the token of its forms around `facts`."""
    caller: Caller = request.scope.get("pilothouse.caller", NOBODY)
    text = (
        _templates()
        .get_template(template)
        .render(
            path=request.url.path,
            query=request.url.query,
            caller=caller,
            is_local=caller is LOCAL,
            may_operate=includes(caller.role, KeyRole.OPERATOR) and caller is not NOBODY,
            may_administer=includes(caller.role, KeyRole.ADMIN) and caller is not NOBODY,
            menu=_menu(caller),
            token=form_token(request),
            now=wording.now(),
            said=unquote(request.cookies.get(SAID_COOKIE, "")),
            **facts,
        )
    )
    answer = _packed(request, text, status)
    keep_secret(request, answer)
    if SAID_COOKIE in request.cookies:
        answer.delete_cookie(SAID_COOKIE)
    return answer


def redirect(request: Request, path: str, said: str = "") -> Response:
    """Leads on to a page of ours, which then says once what was done."""
    answer = Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store"})
    if said:
        set_cookie(request, answer, SAID_COOKIE, quote(said[:500]), seconds=SAID_SECONDS)
    return answer


def show_problem(request: Request, problem: Problem) -> Response:
    """A refusal or a failure, as a page."""
    answer = show(request, "problem.html", problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer


def refusal_status(error: PilothouseError) -> int:
    """The HTTP status of a page that says why something was refused."""
    problem = problem_of(error)
    return 400 if problem is None else problem.status


class PageRoute(APIRoute):
    """A route whose refusals are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except PilothouseError as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                return show_problem(request, problem)
            except HTTPException as error:
                return show_problem(request, Problem(error.status_code, "refused", str(error.detail)))

        return handle_page


def _menu(caller: Caller) -> list[tuple[str, list[tuple[str, str]]]]:
    """What of the menu the caller may open."""
    if caller is NOBODY:
        return []
    groups = [
        (title, [(name, path) for name, path, is_shared in items if caller.tenant is None or is_shared])
        for title, items in MENU
    ]
    return [(title, items) for title, items in groups if items]


def _packed(request: Request, text: str, status: int) -> Response:
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # with no-referrer a browser hides the origin of its forms too
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding",
    }
    content = text.encode("utf-8", "replace")
    if len(content) > WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 5, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, status, headers, "text/html")


@cache
def _templates() -> jinja2.Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("pilothouse.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= wording.FILTERS
    made.globals |= {"address": address, "version": __version__}
    return made
