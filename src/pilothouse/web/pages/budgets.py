"""Budgets: how every limit stands, the tightest first; set one, and grant a run more."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import agent_pages, budgets, limits, run_budgets
from pilothouse.control.run_budgets import Grant
from pilothouse.domain.budgets import parse_amount
from pilothouse.domain.limits import Limit, Period, Unit, show_amount
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import Form, FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

SHOWN = 100
UNITS = {"usd": Unit.MICROUSD, **{str(unit): unit for unit in Unit if unit is not Unit.MICROUSD}}
SET = {"scope": "", "amount": "", "unit": "usd", "period": "day", "reason": ""}
GRANT = {"run": "", "extra": "", "grant_unit": "usd", "why": ""}


@router.get("/budgets")
async def list_page(request: Request, backend: BackendOf) -> Response:
    return await _list(request, backend)


@router.post("/budgets/set")
async def set_limit(request: Request, backend: BackendOf, form: FormOf) -> Response:
    asked = _typed(SET, form)
    try:
        unit = _unit(asked["unit"])
        period = Period.RUN if asked["scope"].startswith(("run:", "run@")) else Period(asked["period"])
        limit = Limit(asked["scope"], period, unit, _amount(asked["amount"], unit))
        await limits.set_limit(backend.db, limit, principal=caller_of(request).principal, reason=asked["reason"])
    except (InvalidInput, ValueError) as error:
        return await _list(request, backend, form=asked, refused=str(error))
    told = "lifted" if limit.amount is None else show_amount(limit.amount, unit)
    return redirect(request, "/budgets", f"The limit of {limit.scope} per {period} is {told}.")


@router.post("/budgets/grant")
async def grant(request: Request, backend: BackendOf, form: FormOf) -> Response:
    asked = _typed(GRANT, form)
    try:
        unit = _unit(asked["grant_unit"])
        wanted = Grant(asked["run"], unit, _amount(asked["extra"], unit) or 0)
        principal = caller_of(request).principal
        given = await run_budgets.grant(backend.db, wanted, principal=principal, reason=asked["why"])
    except (InvalidInput, NotFound, Conflict) as error:
        return await _list(request, backend, form=asked, refused=str(error))
    waits = f" It still waits for {given.waits[0].account}." if given.waits else ""
    return redirect(request, "/budgets", f"Run {wanted.run_id} may use {show_amount(given.limit, unit)}.{waits}")


def _typed(usual: Form, form: Form) -> Form:
    return usual | {name: form[name].strip() or value for name, value in usual.items() if name in form}


def _unit(name: str) -> Unit:
    if name not in UNITS:
        told = f"the unit is {name!r}; it is one of {', '.join(UNITS)}"
        raise InvalidInput(told, [FieldError("unit", told)])
    return UNITS[name]


def _amount(text: str, unit: Unit) -> int | None:
    """Raises InvalidInput that says what an amount is."""
    try:
        return parse_amount(text, unit)
    except ValueError as error:
        raise InvalidInput(str(error), [FieldError("amount", str(error))]) from error


async def _list(request: Request, backend: Backend, *, form: Form | None = None, refused: str = "") -> Response:
    settings = backend.settings
    found = await budgets.list_budgets(backend.db, settings.calendar, with_runs=True)
    rows = [budgets.public(each, found.now, settings.degrade_at) for each in found.items]
    return show(
        request,
        "budgets.html",
        422 if refused else 200,
        rows=rows[:SHOWN],
        more=len(rows[SHOWN:]),
        tightest=next((row for row in rows if row["limit"] is not None), None),
        low=[row for row in rows if row["level"] in ("low", "used_up")],
        spent=await _spent(backend),
        units=tuple(UNITS),
        form=SET | GRANT | (form or {}),
        refused=refused,
    )


async def _spent(backend: Backend) -> list[dict[str, Any]]:
    """What each agent has cost today, the dearest first."""
    agents = await agent_pages.look(backend.db, backend.settings.calendar)
    days = sorted((each.day for each in agents), key=lambda day: (-day.cost_microusd, day.agent))
    total = sum(day.cost_microusd for day in days)
    return [
        {"day": day, "share": day.cost_microusd / total if total else None, "total": total}
        for day in days
        if day.cost_microusd or day.runs_ended
    ]
