"""Budgets: how every limit stands, limits to set, and more for runs that one of them keeps waiting."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.control import budgets, limits, run_budgets
from pilothouse.control.run_budgets import Grant
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.web import requests
from pilothouse.web import spending_schemas as schemas
from pilothouse.web.access import PrincipalOf, caller_of
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["budgets"])


@router.get("/budgets", responses=gives(schemas.BudgetList))
async def list_budgets(backend: BackendOf, *, tenant: str | None = None, runs: bool = False) -> Response:
    """Every limit with each account that it is for, those first of which the largest share is used.

    With `runs` those of the runs under way too; with `tenant` only that tenant's own.
    """
    found = await budgets.list_budgets(backend.db, backend.settings.calendar, with_runs=runs and tenant is None)
    items = [each for each in found.items if tenant is None or each.standing.account == f"tenant:{tenant}"]
    shown = [budgets.public(each, found.now, backend.settings.degrade_at) for each in items]
    return answer({"items": shown, "next": None})


@router.put("/budgets", openapi_extra=takes(requests.SetBudget), responses=gives(schemas.BudgetSet))
async def set_budget(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Sets a limit from now on, also below what is used already; runs that wait for room look again."""
    body = await read_model(request, requests.SetBudget)
    limit = Limit(body.scope, Period(body.period), Unit(body.unit), body.amount)
    before = await limits.set_limit(backend.db, limit, principal=principal, reason=body.reason)
    over = await budgets.over_limit(backend.db, limit, backend.settings.calendar)
    told = {**limit._asdict(), "before": before and before["amount"], "over": [each.account for each in over]}
    return answer(told)


@router.post("/runs/{id}/grant", openapi_extra=takes(requests.GrantMore), responses=gives(schemas.Granted))
async def grant_more(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Lets a run use so much more than it has used so far; where it waited for that, it goes on."""
    body = await read_model(request, requests.GrantMore)
    wanted = Grant(id, Unit(body.unit), body.amount)
    granted = await run_budgets.grant(backend.db, wanted, principal=principal, reason=body.reason)
    return answer(run_budgets.granted_view(wanted, granted))


@router.get("/runs/{id}/budget", responses=gives(schemas.RunBudget))
async def explain_budget(id: str, request: Request, backend: BackendOf) -> Response:
    """Every limit that applies to a run, and what it has done to it; for a key of one tenant only its own."""
    settings, tenant = backend.settings, caller_of(request).tenant
    found = await run_budgets.explain(backend.db, id, settings.calendar)
    told = run_budgets.explained_view(found, settings.degrade_at, settings.routes)
    if tenant is not None:
        own = (f"run:{id}", f"tenant:{tenant}")
        told |= {"rules": [rule for rule in told["rules"] if rule["account"] in own], "next": []}
    return answer(told)
