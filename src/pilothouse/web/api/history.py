"""The history: how counters and gauges stood over time, for charts and forecasts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pilothouse.clock import isoformat
from pilothouse.control import history
from pilothouse.control.instants import now
from pilothouse.domain.history import CUMULATIVE, NAMES, Point, SeriesKey, Span, rates
from pilothouse.web import history_schemas as schemas
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["history"])

Names = Annotated[list[str], Query(alias="name", min_length=1, max_length=20, description=", ".join(sorted(NAMES)))]
Seconds = Annotated[int, Query(ge=15, le=366 * 86_400, description="How far back it goes.")]
StepSeconds = Annotated[int, Query(ge=1, le=30 * 86_400, description="How far the instants are apart.")]


@router.get("/history", responses=gives(schemas.History))
async def get_history(
    backend: BackendOf,
    *,
    names: Names,
    agent: str | None = None,
    seconds: Seconds = 3600,
    step_seconds: StepSeconds = 15,
) -> Response:
    """How series stood at equal steps up to now; of all agents or of one.

    Samples are 15 s apart for six hours, and five minutes after that.
    """
    step_us = step_seconds * 1_000_000
    until_us = await backend.db.read(now) // step_us * step_us
    since_us = until_us - seconds * 1_000_000 // step_us * step_us
    found = await history.read_history(
        backend.db, names, since_us=since_us, until_us=until_us, step_us=step_us, agent=agent
    )
    instants = [isoformat(at) for at in range(since_us, until_us + 1, step_us)]
    items = [_series(key, points) for key, points in sorted(found.items())]
    return answer({"instants": instants, "step_seconds": step_seconds, "items": items, "next": None})


def _series(key: SeriesKey, points: list[Point]) -> dict[str, object]:
    told: dict[str, object] = key._asdict() | {"kind": "gauge", "values": [point.value for point in points]}
    if key.name not in CUMULATIVE:
        return told | {"rates": None, "increase": None}
    known = [point.value for point in points if point.value is not None]
    whole = Span(known[0], known[-1]) if known else Span(None, None)
    return told | {"kind": "cumulative", "rates": [None, *rates(points)], "increase": whole.increase}
