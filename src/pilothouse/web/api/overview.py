"""The overview: what the status page shows, in one answer."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pilothouse import __version__
from pilothouse.control import dead, insights, runs
from pilothouse.control.dead import DeadFilter
from pilothouse.control.views import run_view
from pilothouse.web import schemas
from pilothouse.web.answers import answer
from pilothouse.web.api.workers import listed_workers
from pilothouse.web.backend import BackendOf
from pilothouse.web.openapi import gives

router = APIRouter(prefix="/api/v1", tags=["overview"])

WORKERS_SHOWN = 12
RUNS_SHOWN = 15
DEAD_COUNTED = 100


@router.get("/overview", responses=gives(schemas.Overview))
async def get_overview(backend: BackendOf) -> Response:
    """Queues per agent and lane, workers, the latest runs, and how many dead letters there are."""
    queues = await insights.queue_insights(backend.db)
    latest = await runs.list_runs(backend.db, runs.Filter(), limit=RUNS_SHOWN)
    letters = await dead.list_dead(backend.db, DeadFilter(), limit=DEAD_COUNTED + 1)
    return answer(
        {
            "version": __version__,
            "queues": [_queue(queue) for queue in queues],
            "workers": await listed_workers(backend.db, limit=WORKERS_SHOWN),
            "runs": [run_view(row) for row in latest],
            "dead": {"count": min(len(letters), DEAD_COUNTED), "has_more": len(letters) > DEAD_COUNTED},
        }
    )


def _queue(queue: insights.QueueInsight) -> dict[str, object]:
    return {
        "agent": queue.agent,
        "lane": queue.lane,
        "runs": queue.runs,
        "oldest_age_seconds": queue.oldest_age_seconds,
    }
