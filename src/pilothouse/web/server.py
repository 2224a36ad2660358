"""The HTTP server: every route, and what surrounds them. The process that serves it is put together elsewhere."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from pilothouse import __version__
from pilothouse.config import Settings
from pilothouse.control import Database, Redis
from pilothouse.control.runs import Submitter
from pilothouse.control.sessions import Sessions
from pilothouse.web import openapi, pages, problems, requests
from pilothouse.web.access import Access
from pilothouse.web.api import (
    agents,
    alerts,
    approvals,
    audit,
    autonomy,
    breakers,
    budgets,
    calibration,
    costs,
    dead,
    effects,
    events,
    health,
    history,
    incidents,
    keys,
    overview,
    policies,
    profiles,
    runbooks,
    runs,
    schedules,
    stability,
    switches,
    tenants,
    workers,
)
from pilothouse.web.backend import Backend
from pilothouse.web.middleware import Failures, RequestLog, UsableAddresses
from pilothouse.web.newsroom import Newsroom
from pilothouse.web.pages.showing import show_problem
from pilothouse.web.rates import Rates

HOUR_US = 3_600_000_000
DESCRIPTION = "Runs AI agents durably: submit runs, watch them, and deal with what went wrong."
ROUTERS = (
    runs.router,  # first, because the busiest route is matched soonest
    events.router,
    dead.router,
    approvals.router,
    policies.router,
    agents.router,
    autonomy.router,
    calibration.router,
    stability.router,
    breakers.router,
    workers.router,
    schedules.router,
    effects.router,
    incidents.router,
    alerts.router,
    switches.router,
    budgets.router,
    costs.router,
    keys.router,
    tenants.router,
    audit.router,
    history.router,
    overview.router,
    runbooks.router,
    profiles.router,
    health.router,
    *pages.ROUTERS,
)


def create_server(
    db: Database, submitter: Submitter, settings: Settings, stopping: asyncio.Event, redis: Redis | None = None
) -> FastAPI:
    """The ASGI application. Event streams end once `stopping` is set."""
    sessions = Sessions(db, settings.session_secret, int(settings.session_hours * HOUR_US))
    app = FastAPI(
        title="Pilothouse",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(RequestLog),
            Middleware(Failures),
            Middleware(UsableAddresses),
            Middleware(Access, db=db, host=settings.host, sessions=sessions, pages=show_problem),
            Middleware(Rates, limits=settings.parsed_rate_limits),
        ],
    )
    newsroom = Newsroom(db, stopping)
    app.state.backend = Backend(db, submitter, settings, stopping, sessions, newsroom, redis)
    problems.install(app, methods_of)
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app, list(requests.ALL))
    return app


def methods_of(path: str) -> set[str]:
    """What a path answers, by all of its routes."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for route in routes if route.path_regex.fullmatch(path) for method in route.methods or ()}


def _operation_id(route: APIRoute) -> str:
    return route.name
