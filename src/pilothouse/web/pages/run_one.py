"""One run: what it does, why it waits, where its time and money went, and what can be done about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from fastapi import APIRouter, Request, Response

from pilothouse import payloads
from pilothouse.control import bulk, run_pages, timeline
from pilothouse.control import signals as signal_verbs
from pilothouse.control.bulk import Order, Verb
from pilothouse.control.dead import RedriveFrom, redrive_run
from pilothouse.control.run_pages import Text
from pilothouse.control.waterfall import waterfall_of
from pilothouse.errors import FieldError, InvalidInput, NotFound, Refused
from pilothouse.web.access import Caller, caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages import run_room
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.run_spans import drawn, time_parts
from pilothouse.web.pages.run_steps import Texts, error_of, shown_steps
from pilothouse.web.pages.showing import PageRoute, redirect, show
from pilothouse.web.pages.wording import cut, plain, pretty, sentence
from pilothouse.web.problems import problem_of

router = APIRouter(include_in_schema=False, route_class=PageRoute)

OPEN = ("queued", "waiting", "running", "cancelling")
DONE = {"cancel": "It is cancelled.", "redrive": "It is queued again.", "dismiss": "It is dismissed."}
WORK = ("model", "tool", "step", "code")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
LONGEST_REASON = 1500
NOTHING_TYPED: Mapping[str, str] = {}
FAMILY_INDENT = 6
RAW_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "no-store",
}


@router.get("/runs/{id}")
async def show_page(id: str, request: Request, backend: BackendOf) -> Response:
    return await _page(request, backend, id)


async def _page(
    request: Request,
    backend: Backend,
    id: str,
    status: int = 200,
    refused: str = "",
    typed: Mapping[str, str] = NOTHING_TYPED,
) -> Response:
    caller = caller_of(request)
    found = await run_pages.look(backend.db, id, tenant=caller.tenant)
    waterfall = await waterfall_of(backend.db, id)
    why = await timeline.why(backend.db, id)
    run, texts = found["run"], Texts(id)
    is_true_to_time = request.query_params.get("time") == "real"
    return show(
        request,
        "run.html",
        status,
        **found | {"steps": shown_steps(found, texts)},
        refused=refused,
        typed={"payload": "", "name": "", "reason": "", "from": "", **typed},
        why=_told(why),
        work_us=sum(us for part, us in waterfall["where_time_went"].items() if part in WORK),
        waterfall=drawn(waterfall, is_true_to_time=is_true_to_time),
        total_us=waterfall["total_us"],
        parts=time_parts(waterfall["where_time_went"], waterfall["total_us"]),
        cost=waterfall["cost"],
        texts=texts,
        error=error_of(run["error"]),
        tree=_tree(found["family"]),
        family_limit=run_pages.FAMILY_SHOWN,
        approvals_wanted=[wait["name"] for wait in found["waits"] if wait["kind"] == "approval"],
        signals_wanted=[wait["name"] for wait in found["waits"] if wait["kind"] == "signal"],
        room_wanted=run_room.offers(found["without_room"]) if caller.tenant is None else (),
        can=_can(run),
        commands=_commands(run, found["waits"]),
        pace=2000 if run["state"] in ("running", "cancelling") else None,
    )


@router.post("/runs/{id}")
async def act_on_page(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    """Does what the button says."""
    caller, action = caller_of(request), form.get("do", "")
    await run_pages.look(backend.db, id, tenant=caller.tenant)
    try:
        said = await _act(backend, caller, id, form)
    except NotFound:
        raise
    except Refused as error:
        problem = problem_of(error)
        return await _page(request, backend, id, 400 if problem is None else problem.status, str(error), form)
    return redirect(request, f"/runs/{id}", DONE.get(action, said))


async def _act(backend: Backend, caller: Caller, id: str, form: Mapping[str, str]) -> str:
    action, reason = form.get("do", ""), form.get("reason", "").strip()[:2000]
    if action == "signal":
        return await _signal(backend, caller, id, form)
    if action == "room":
        return await run_room.make(backend, caller, id, form)
    if action == "redrive":
        begin = form.get("from", "failure")
        step = begin.removeprefix("step:") if begin.startswith("step:") else None
        start: RedriveFrom = "start" if begin == "start" else "failure"
        await redrive_run(backend.db, id, principal=caller.principal, start_from=start, step=step, reason=reason)
        return ""
    if action not in get_args(Verb):
        raise InvalidInput("do: choose one of the buttons", [FieldError("do", "unknown")])
    (done,) = await bulk.carry_out(backend.db, Order(cast(Verb, action), caller.principal, caller.tenant, reason), [id])
    if not done.is_done:
        raise InvalidInput(done.told)
    return ""


async def _signal(backend: Backend, caller: Caller, id: str, form: Mapping[str, str]) -> str:
    text, name = form.get("payload", "").strip(), form.get("name", "")
    try:
        payload = payloads.decode(text) if text else None
    except ValueError as error:
        told = f"the payload is not JSON: {error}; a text stands in double quotes"
        raise InvalidInput(told, [FieldError("payload", "not JSON")]) from error
    is_first = await signal_verbs.send_signal(backend.db, id, name, payload, principal=caller.principal)
    return f"Signal {name} was sent." if is_first else f"Signal {name} was there already; the first one stands."


@router.get("/runs/{id}/text/{name}")
async def show_text(id: str, name: str, request: Request, backend: BackendOf, step: str | None = None) -> Response:
    """A long text in whole, as nothing but text."""
    if name not in get_args(Text):
        raise NotFound(f"a run has no text {name[:50]!r}")
    tenant = caller_of(request).tenant
    text = await run_pages.whole_text(backend.db, id, cast(Text, name), key=step, tenant=tenant)
    try:
        text = pretty(payloads.decode(text))
    except ValueError:
        pass  # then as it is stored
    return Response(text.encode("utf-8", "replace"), 200, RAW_HEADERS, "text/plain; charset=utf-8")


# --- what it says --------------------------------------------------------------------------------


def _can(run: Mapping[str, Any]) -> frozenset[str]:
    """What can be done to it now."""
    if run["state"] == "failed":
        return frozenset({"redrive"} if run["dismissed_at"] else {"redrive", "dismiss"})
    is_open = run["state"] in OPEN and run["cancel_requested_at"] is None
    return frozenset({"cancel"} if is_open else ())


def _told(why: Mapping[str, Any]) -> dict[str, Any]:
    """Why it is where it is: its reasons as texts that instants follow, and the commands that the advice names."""
    reasons = [list(_with_instants(sentence(cut(plain(reason), LONGEST_REASON)))) for reason in why["reasons"]]
    return {"told": reasons, "advice": why["next"], "commands": _commands_in(why["next"])}


def _with_instants(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    for found in INSTANT.finditer(text):
        yield text[at : found.start()], found[0]
        at = found.end()
    yield text[at:], None


def _commands_in(advice: str) -> list[str]:
    """The commands that an advice names."""
    return [text for text in advice.split("`")[1::2] if text.startswith("pilothouse ")]


def _commands(run: Mapping[str, Any], waits: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each action of the page as a command."""
    id, can = run["id"], _can(run)
    told = [("all of this page", f"pilothouse runs show {id}")]
    if run["state"] in OPEN:
        told.append(("follow it", f"pilothouse runs watch {id}"))
    if "cancel" in can:
        told.append(("cancel it and what it has started", f"pilothouse runs cancel {id}"))
    told += [
        (f"send signal {wait['name']}", f"pilothouse runs signal {id} {shlex.quote(wait['name'])} '{{}}'")
        for wait in waits
        if wait["kind"] == "signal"
    ]
    if "redrive" in can:
        told.append(("redrive it from where it failed", f"pilothouse runs redrive {id}"))
        told.append(("from the start, or from a step", f"pilothouse runs redrive {id} --from start | --step STEP"))
    if "dismiss" in can:
        told.append(("dismiss it", f"pilothouse dead dismiss {id}"))
    return [*told, ("everything as JSON", f"pilothouse runs show {id} --json")]


def _tree(family: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A family in the order of a tree, each with how deep it stands; alone it is none."""
    if len(family) < 2:
        return []
    known = {run["id"] for run in family}
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    for run in family:
        below.setdefault(run["parent_id"] if run["parent_id"] in known else None, []).append(run)
    found: list[dict[str, Any]] = []
    left = [(run, 0) for run in reversed(below.get(None, ()))]
    while left:
        run, depth = left.pop()
        found.append({**run, "level": min(depth, FAMILY_INDENT)})
        left += [(child, depth + 1) for child in reversed(below.get(run["id"], ()))]
    return found
