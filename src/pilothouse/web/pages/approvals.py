"""The pages on which people decide: a list, one approval in full, and what a signed link opens.

Nothing is decided by looking: a form decides, which only this server's own page can have made.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from pilothouse import payloads
from pilothouse.clock import SystemClock, from_datetime
from pilothouse.control import agents, approvals
from pilothouse.control.approvals import Filter, Handover, Said
from pilothouse.domain.approvals import ApprovalState, Choice, Decider
from pilothouse.domain.keys import KeyRole, includes
from pilothouse.domain.notices import CHOICES, Link, read_link
from pilothouse.domain.policies import TIER_NAMES
from pilothouse.errors import FieldError, InvalidInput, NotFound, Refused
from pilothouse.web.access import NOBODY, caller_of
from pilothouse.web.backend import BackendOf, backend_of
from pilothouse.web.bodies import read_form
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.paging import next_page
from pilothouse.web.pages.showing import PageRoute, redirect, refusal_status, show, show_problem
from pilothouse.web.pages.wording import pretty
from pilothouse.web.problems import Problem

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 50
NEAR, PRESSING = 0.33, 0.1
"""Shares of the time to decide that are left when a deadline is near, and when it presses."""

STATES = ("pending", "approved", "rejected", "returned", "expired", "withdrawn", "all")
SAID = {
    "approve": "Your approval was recorded.",
    "reject": "It was rejected; the agent is told why.",
    "revise": "It was sent back; the agent is told what to change.",
    "delegate": "Somebody else was asked to decide.",
}
_clock = SystemClock()


@router.get("/approvals")
async def list_page(
    request: Request, backend: BackendOf, state: str = "pending", agent: str = "", after: str | None = None
) -> Response:
    """What waits for a person has the nearest deadline first, everything else the newest."""
    caller, db = caller_of(request), backend.db
    chosen = state if state in STATES else "pending"
    wanted = Filter(None if chosen == "all" else chosen, agent or None, tenant=caller.tenant)
    read = approvals.list_pending if chosen == "pending" else approvals.list_approvals
    rows = await read(db, wanted, after=after, limit=SHOWN + 1)
    place = approvals.urgency_of if chosen == "pending" else _id_of
    items = [approvals.public(row) | {"urgency": urgency(row)} for row in rows[:SHOWN]]
    return show(
        request,
        "approvals.html",
        items=items,
        state=chosen,
        states=STATES,
        agent=agent,
        agents=[row["name"] for row in await agents.list_agents(db)],
        older=next_page(request, place(rows[SHOWN - 1])) if len(rows) > SHOWN else None,
    )


def _id_of(row: Mapping[str, Any]) -> str:
    return str(row["id"])


def urgency(row: Mapping[str, Any]) -> str:
    """The tone of a deadline: how little is left of the time that there was to decide."""
    if row["state"] != ApprovalState.PENDING or row["deadline_at"] is None:
        return "grey"
    left = (row["deadline_at"] - row["now"]) / max(1, row["deadline_at"] - row["requested_at"])
    return "red" if left < PRESSING else "amber" if left < NEAR else "blue"


@router.get("/approvals/link/{token}")
async def link_page(token: str, request: Request) -> Response:
    """Asks once more: a mail program that opens every link must not decide."""
    link, approval = await _linked(request, token)
    if link is None or approval is None:
        return _gone(request)
    return show(request, "approval_link.html", approval=_shown(approval), link=link)


@router.post("/approvals/link/{token}")
async def decide_by_link(token: str, request: Request, backend: BackendOf) -> Response:
    link, approval = await _linked(request, token)
    if link is None or approval is None:
        return _gone(request)
    form = await read_form(request)
    said = Said(link.choice, form.get("note", ""), seen_hash=form.get("seen") or None)
    by = Decider(link.recipient, KeyRole.OPERATOR)
    facts: dict[str, Any] = {"link": link}
    try:
        decided = await approvals.decide(backend.db, link.approval_id, said, by)
    except Refused as error:
        return show(
            request, "approval_link.html", refusal_status(error), approval=_shown(approval), refused=str(error), **facts
        )
    return show(request, "approval_link.html", approval=_shown(approval | decided), is_done=True, **facts)


@router.get("/approvals/{id}")
async def show_page(id: str, request: Request, backend: BackendOf) -> Response:
    return _show(request, await approvals.show_approval(backend.db, id, tenant=caller_of(request).tenant))


@router.post("/approvals/{id}")
async def decide_on_page(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    approval = await approvals.show_approval(backend.db, id, tenant=caller_of(request).tenant)
    try:
        await _do(request, approval, form)
    except Refused as error:
        return _show(request, approval, refusal_status(error), str(error), form)
    return redirect(request, f"/approvals/{id}", said=SAID[form["decision"]])


async def _do(request: Request, approval: Mapping[str, Any], form: Mapping[str, str]) -> None:
    """What the form says. Raises what the verbs raise."""
    backend, by, note = backend_of(request), caller_of(request).decider, form.get("note", "")
    db = backend.db
    if form.get("decision") == "delegate":
        handover = Handover(form.get("to", "").strip(), note, backend.settings.channels)
        await approvals.delegate(db, approval["id"], handover, by)
        return
    if form.get("decision") not in CHOICES:
        raise InvalidInput("decision: choose one of the buttons", [FieldError("decision", "unknown")])
    choice = cast(Choice, form["decision"])
    edited = _edited(approval, form.get("arguments", "")) if choice == "approve" else None
    await approvals.decide(db, approval["id"], Said(choice, note, edited, form.get("seen") or None), by)


def _edited(approval: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    """The arguments of the form where they are others than those that stand."""
    try:
        value = payloads.decode(text)
    except ValueError as error:
        raise InvalidInput(f"the arguments are not JSON: {error}", [FieldError("arguments", "not JSON")]) from error
    if not isinstance(value, dict):
        raise InvalidInput("the arguments are a JSON object", [FieldError("arguments", "no object")])
    return None if value == _current(approval) else value


def _current(approval: Mapping[str, Any]) -> Any:
    return approval["arguments"] if approval["decided_arguments"] is None else approval["decided_arguments"]


async def _linked(request: Request, token: str) -> tuple[Link | None, dict[str, Any] | None]:
    backend = backend_of(request)
    request.scope["pilothouse.caller"] = NOBODY  # the link opens this one page
    secret = backend.settings.approval_secret
    link = None if secret is None else read_link(secret, token, now=_clock.now_us() // 1_000_000)
    if link is None:
        return None, None
    try:
        return link, await approvals.show_approval(backend.db, link.approval_id)
    except NotFound:
        return None, None


# --- how it looks ------------------------------------------------------------------------------


def _show(
    request: Request,
    approval: Mapping[str, Any],
    status: int = 200,
    refused: str = "",
    form: Mapping[str, str] | None = None,
) -> Response:
    role = caller_of(request).role
    return show(
        request,
        "approval.html",
        status,
        approval=_shown(approval) | {"changes": _changes(approval)},
        urgency=_urgency_shown(approval),
        refused=refused,
        form={"arguments": "", "note": "", "to": "", **(form or {})},
        may_decide=includes(role, KeyRole.OPERATOR) and approval["state"] == ApprovalState.PENDING,
    )


def _shown(approval: Mapping[str, Any]) -> dict[str, Any]:
    current = _current(approval)
    return {
        **approval,
        "tier": TIER_NAMES[approval["risk"]],
        "current": current,
        "current_text": pretty(current),
        "current_hash": approval["decided_hash"] or approval["arguments_hash"],
    }


def _urgency_shown(approval: Mapping[str, Any]) -> str:
    instants = {name: from_datetime(datetime.fromisoformat(approval[name])) if approval[name] else None for name in _AT}
    return urgency({**approval, **instants, "now": _clock.now_us()})


_AT = ("deadline_at", "requested_at")


def _changes(approval: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Line by line what a reviewer has made of the arguments: (`+`, `-` or ` `, line); empty where nothing."""
    if approval["decided_arguments"] is None:
        return []
    asked, decided = (pretty(approval[name]).splitlines() for name in ("arguments", "decided_arguments"))
    return [(line[0], line[2:]) for line in difflib.ndiff(asked, decided) if line[0] != "?"]


def _gone(request: Request) -> Response:
    told = "this link is not good: it was changed on its way, or has expired"
    return show_problem(request, Problem(404, "not_found", told))
