"""The HTTP server: every route, and what surrounds them. The process that serves it is put together elsewhere."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from pilothouse import __version__
from pilothouse.config import Settings
from pilothouse.control import Database
from pilothouse.control.runs import Submitter
from pilothouse.web import openapi, problems, requests
from pilothouse.web.access import Access
from pilothouse.web.api import agents, audit, dead, events, health, keys, overview, runs, schedules, workers
from pilothouse.web.backend import Backend
from pilothouse.web.middleware import Failures, RequestLog, UsableAddresses
from pilothouse.web.pages import overview as overview_page
from pilothouse.web.rates import Rates

DESCRIPTION = "Runs AI agents durably: submit runs, watch them, and deal with what went wrong."
ROUTERS = (
    runs.router,  # first, because the busiest route is matched soonest
    events.router,
    dead.router,
    agents.router,
    workers.router,
    schedules.router,
    keys.router,
    audit.router,
    overview.router,
    health.router,
    overview_page.router,
)


def create_server(db: Database, submitter: Submitter, settings: Settings, stopping: asyncio.Event) -> FastAPI:
    """The ASGI application. Event streams end once `stopping` is set."""
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
            Middleware(Access, db=db, host=settings.host),
            Middleware(Rates, limits=settings.parsed_rate_limits),
        ],
    )
    app.state.backend = Backend(db, submitter, settings, stopping)
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
