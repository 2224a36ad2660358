"""Agents: how each does, how much it may do alone, and the buttons that suspend it and change its autonomy."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from pilothouse.control import agent_pages, agents, autonomy, breakers, budgets, switches
from pilothouse.control.agent_health import ORDER, health_of
from pilothouse.control.agent_pages import AgentNow, AgentSeen
from pilothouse.control.autonomy import LevelChange
from pilothouse.control.switches import TripOrder
from pilothouse.control.views import view
from pilothouse.domain.autonomy import LEVELS, Level
from pilothouse.domain.switches import SwitchMode
from pilothouse.errors import FieldError, Forbidden, InvalidInput
from pilothouse.web.access import caller_of
from pilothouse.web.backend import Backend, BackendOf
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/agents")
async def list_page(request: Request, backend: BackendOf) -> Response:
    """A key of one tenant sees the definitions, which all tenants share; the figures are of all tenants."""
    if caller_of(request).tenant is not None:
        rows = [agents.public(row) for row in await agents.list_agents(backend.db)]
        return show(request, "agents.html", definitions=rows, agents=[])
    found = [_shown(each) for each in await agent_pages.look(backend.db, backend.settings.calendar)]
    found.sort(key=lambda each: (ORDER[each["health"].tone], each["name"]))
    return show(request, "agents.html", definitions=[], agents=found)


@router.get("/agents/{name}")
async def show_page(name: str, request: Request, backend: BackendOf) -> Response:
    if caller_of(request).tenant is not None:
        definition = agents.public(await agents.show_agent(backend.db, name))
        return show(request, "agent.html", agent=definition, seen=None, levels=LEVELS)
    settings = backend.settings
    seen = await agent_pages.look_at(
        backend.db,
        name,
        settings.calendar,
        default=settings.new_agent_level,
        threshold=settings.confidence_auto_threshold,
    )
    return show(request, "agent.html", agent=_shown(seen.standing), seen=_facts(seen, backend), levels=LEVELS)


@router.post("/agents/{name}/suspend")
async def suspend(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    principal = _operator(request)
    await agents.show_agent(backend.db, name)
    mode = _one_of(form, "mode", tuple(SwitchMode))
    order = TripOrder(f"agent:{name}", SwitchMode(mode), form.get("reason", "").strip())
    await switches.trip_switch(backend.db, order, principal=principal)
    return _back(request, name, f"Agent {name} is suspended.")


@router.post("/agents/{name}/resume")
async def resume(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await switches.reset_switch(backend.db, f"agent:{name}", principal=_operator(request))
    return _back(request, name, f"Agent {name} goes on.")


@router.post("/agents/{name}/promote")
async def promote(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    asked = LevelChange(name, form.get("action", ""), None, form.get("version") or None)
    default, principal = backend.settings.new_agent_level, _operator(request)
    done = await autonomy.promote(backend.db, asked, default=default, principal=principal)
    return _back(request, name, f"{_action(asked)} is {done['level']} now.")


@router.post("/agents/{name}/demote")
async def demote(name: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    to = Level(_one_of(form, "to", LEVELS[:-1]))
    asked = LevelChange(name, form.get("action") or "*", to, form.get("version") or None)
    default, reason = backend.settings.new_agent_level, form.get("reason", "").strip() or "demoted by hand"
    principal = _operator(request)
    done = await autonomy.demote(backend.db, asked, reason=reason, default=default, principal=principal)
    return _back(request, name, f"{_action(asked)} is {done['level']} now.")


def _operator(request: Request) -> str:
    """Who acts. Raises Forbidden for a key of one tenant: an agent works for all of them."""
    caller = caller_of(request)
    if caller.tenant is not None:
        raise Forbidden("agents are shared by all tenants; a key of one tenant may look at them and not change them")
    return caller.principal


def _one_of(form: dict[str, str], name: str, known: tuple[str, ...]) -> str:
    chosen = form.get(name) or known[0]
    if chosen not in known:
        told = f"{name} is {chosen!r}; it is one of {', '.join(known)}"
        raise InvalidInput(told, [FieldError(name, told)])
    return chosen


def _back(request: Request, name: str, said: str) -> Response:
    return redirect(request, f"/agents/{quote(name, safe='')}", said)


def _action(asked: LevelChange) -> str:
    return "Every action" if asked.action == "*" else f"Action {asked.action}"


# --- what is shown -----------------------------------------------------------------------------


def _shown(each: AgentNow) -> dict[str, Any]:
    return view(agents.public(each.agent)) | {
        "runs": each.runs,
        "oldest": each.oldest_age_seconds,
        "day": each.day,
        "cost_per_run": each.day.cost_microusd / each.day.runs_ended if each.day.runs_ended else None,
        "workers": each.workers,
        "switch": each.switch and view(each.switch),
        "health": health_of(each),
    }


def _facts(seen: AgentSeen, backend: Backend) -> dict[str, Any]:
    limits = [budgets.public(each, seen.now, backend.settings.degrade_at) for each in seen.budgets]
    return {
        "p50": seen.p50,
        "p95": seen.p95,
        "measured": seen.measured,
        "versions": seen.versions,
        "autonomy": [view(row) for row in seen.levels],
        "calibration": seen.calibration,
        "breakers": [view(breakers.public(row)) for row in seen.breakers],
        "budgets": limits,
        "plan": seen.plan and view(seen.plan),
    }
