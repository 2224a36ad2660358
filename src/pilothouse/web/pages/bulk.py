"""Many runs at once: first the page that says which ones and what would happen, then the one that says what did."""

from __future__ import annotations

from typing import Any, cast, get_args

from fastapi import APIRouter, Request, Response

from pilothouse.control import bulk
from pilothouse.control.bulk import Choice, Order, Verb
from pilothouse.control.dead import RedriveFrom
from pilothouse.control.views import run_view
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.web.access import caller_of
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.run_filters import RunQuery, read_query
from pilothouse.web.pages.run_steps import error_of
from pilothouse.web.pages.showing import PageRoute, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

COMMANDS: dict[Verb, str] = {"cancel": "runs cancel", "redrive": "runs redrive", "dismiss": "dead dismiss"}
WHAT = {
    "cancel": "Each run and everything it has started is cancelled. What runs now is stopped by its worker.",
    "redrive": "Each run is queued again with fresh attempts. Finished steps keep their checkpoints.",
    "dismiss": "Each run leaves the dead letters. It stays in the list of runs, as failed.",
}


@router.get("/runs/bulk")
async def preview_page(request: Request, backend: BackendOf, verb: str = "cancel") -> Response:
    """What would happen to which runs; nothing happens by looking."""
    action, tenant = _verb(verb), caller_of(request).tenant
    query = read_query(dict(request.query_params), tenant, backend.db.clock.now_us())
    named = request.query_params.getlist("run")
    is_by_hand = bool(named) or "chosen" in request.query_params  # ticking nothing means none, and not all
    choice = Choice(query.wanted, tuple(named) if is_by_hand else None, query.error_type)
    chosen = await bulk.choose(backend.db, action, choice)
    return show(
        request,
        "bulk.html",
        verb=action,
        what=WHAT[action],
        rows=[run | {"error": error_of(run["error"])} for run in map(run_view, chosen.rows)],
        has_more=chosen.has_more,
        most=bulk.MOST,
        ids=",".join(row["id"] for row in chosen.rows),
        command=_command(action, query, named) if named or not is_by_hand else "",
        back=_back(request),
        done=None,
    )


@router.post("/runs/bulk")
async def do_page(request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Does what the preview said, to those runs and no others; says what became of each."""
    caller, action = caller_of(request), _verb(form.get("verb", ""))
    ids = [id for id in form.get("ids", "").split(",") if id]
    start: RedriveFrom = "start" if form.get("from") == "start" else "failure"
    order = Order(action, caller.principal, caller.tenant, form.get("reason", "").strip()[:2000], start)
    done = await bulk.carry_out(backend.db, order, ids)
    facts: dict[str, Any] = {"what": "", "rows": [], "has_more": False, "most": bulk.MOST, "ids": "", "command": ""}
    return show(request, "bulk.html", verb=action, done=done, back=form.get("back", ""), **facts)


def _verb(text: str) -> Verb:
    if text not in get_args(Verb):
        told = f"{text[:50]!r} is none; use cancel, redrive or dismiss"
        raise InvalidInput(f"verb: {told}", [FieldError("verb", told)])
    return cast(Verb, text)


def _command(verb: Verb, query: RunQuery, named: list[str]) -> str:
    if named:
        return f"pilothouse {COMMANDS[verb]} {named[0]}" if len(named) == 1 else ""
    told = query.command(COMMANDS[verb])
    return told if verb == "dismiss" else f"{told} --dry-run"


def _back(request: Request) -> str:
    """The list it was chosen from."""
    return "dead" if request.query_params.get("back") == "dead" else "runs"
