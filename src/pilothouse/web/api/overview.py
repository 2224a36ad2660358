"""The overview: the platform at a glance, in one answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from pilothouse import __version__
from pilothouse.control import overview
from pilothouse.control.insights import QueueInsight
from pilothouse.control.overview import Overview
from pilothouse.control.views import run_view, view
from pilothouse.domain.budgets import Standing
from pilothouse.web import overview_schemas
from pilothouse.web.answers import answer
from pilothouse.web.api.workers import shown_worker
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["overview"])


@router.get("/overview", responses=gives(overview_schemas.Overview))
async def get_overview(backend: BackendOf) -> Response:
    """Queues per agent and lane, workers, the latest runs, tripped switches, and how many dead letters there are."""
    return answer(shown(await overview.look(backend.db, backend.settings.calendar)))


def shown(seen: Overview) -> dict[str, Any]:
    """The platform as users see it."""
    return {
        "version": __version__,
        "queues": [_queue(queue) for queue in seen.queues],
        "workers": [shown_worker(row) for row in seen.workers],
        "runs": [run_view(row) for row in seen.runs],
        "switches": [view(row) for row in seen.switches],
        "spending": {"day": _spent(seen.day), "month": _spent(seen.month), "blocked_runs": seen.blocked_runs},
        "alerts": seen.alerts,
        "dead": {
            "count": min(len(seen.dead), overview.DEAD_COUNTED),
            "has_more": len(seen.dead) > overview.DEAD_COUNTED,
        },
    }


def _spent(standing: Standing) -> dict[str, object]:
    return {
        "period": standing.period,
        "settled_microusd": standing.settled,
        "reserved_microusd": standing.reserved,
        "limit_microusd": standing.limit,
    }


def _queue(queue: QueueInsight) -> dict[str, object]:
    return {
        "agent": queue.agent,
        "lane": queue.lane,
        "runs": queue.runs,
        "oldest_age_seconds": queue.oldest_age_seconds,
    }
