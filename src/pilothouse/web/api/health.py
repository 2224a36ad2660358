"""For those who look after the process: is it alive, can it work, what are its figures."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from pilothouse.control import figures, readiness
from pilothouse.control.counters import DURATION_BUCKETS_SECONDS
from pilothouse.domain.readiness import worst
from pilothouse.telemetry import metrics
from pilothouse.web import health_schemas as schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import PROBLEMS, gives

router = APIRouter(tags=["health"])


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=gives(schemas.Health))
async def get_health() -> Response:
    """Liveness: the process turns. Never asks the database, so that an outage of it restarts nothing."""
    return answer({"status": "ok"})


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={**gives(schemas.Ready), 503: {"model": schemas.Ready}})
async def get_ready(backend: BackendOf) -> Response:
    """Readiness: `degraded` takes runs that will wait; `not_ready`, with 503, takes none."""
    checks = await readiness.readiness(backend.db, backend.settings, backend.redis)
    status = worst(checks)
    told = {"status": status, "checks": {name: asdict(check) for name, check in checks.items()}}
    return answer(told, 503 if status == "not_ready" else 200)


@router.get("/metrics", response_class=PlainTextResponse, responses=PROBLEMS)
async def get_metrics(backend: BackendOf) -> Response:
    """Prometheus text. The figures come from the database: every API process answers the same."""
    if not backend.settings.enable_metrics:
        raise HTTPException(404)
    found = await figures.read_figures(backend.db, backend.settings.calendar)
    text = metrics.render_metrics(found, DURATION_BUCKETS_SECONDS)
    return PlainTextResponse(text, media_type=metrics.CONTENT_TYPE)
