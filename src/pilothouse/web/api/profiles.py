"""Profiles: where time and money went, by agent, step, model, tool and wait."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pilothouse.control import profiles
from pilothouse.control.profiles import Period
from pilothouse.domain.profiles import By
from pilothouse.web import profile_schemas as schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import Instant
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["profiles"])

MOST_RUNS = 2000
Most = Annotated[int, Query(alias="runs", ge=1, le=MOST_RUNS, description="Read at most so many runs, the newest.")]


@router.get("/profile", responses=gives(schemas.Profile))
async def report_profile(
    backend: BackendOf,
    *,
    since: Instant | None = None,
    until: Instant | None = None,
    agent: str | None = None,
    by: By | None = None,
    most: Most = MOST_RUNS,
) -> Response:
    """The runs that were submitted in a period, the last day unless given; what took longest first."""
    return answer(await profiles.report(backend.db, Period(since, until, agent), by=by, most=most))
