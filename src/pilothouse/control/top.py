"""What is going on now, in one look: what `pilothouse top` shows. Its cost does not grow with history."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pilothouse.clock import isoformat
from pilothouse.config import Settings
from pilothouse.control import alerts, budgets, dead, insights, instants, readiness, run_lists, switches, workers
from pilothouse.control.dead import DeadFilter
from pilothouse.control.insights import QueueInsight
from pilothouse.control.readiness import is_live
from pilothouse.control.views import run_view, view
from pilothouse.domain.lanes import LANE_ORDER
from pilothouse.domain.readiness import worst
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Database

WORKERS_SHOWN = 50
RUNS_SHOWN = 50
DEAD_COUNTED = 1000
RUN_FIELDS = ("id", "agent", "lane", "tenant", "state", "attempt", "started_at", "progress_done", "progress_total")


async def top(db: Database, settings: Settings) -> dict[str, Any]:
    """The state of the platform and why, queues by lane, workers, runs under way, spending, and what waits for people.

    `ended` counts the runs that have ended so far: two looks tell the throughput.
    """
    checks = await readiness.readiness(db, settings)
    found: dict[str, Any] = {
        "state": worst(checks),
        "reasons": [f"{name}: {check.detail}" for name, check in checks.items() if check.status != "ready"],
    }
    if "agents" not in checks:  # the database gives no answer, or not one of ours
        return found
    queues = await insights.queue_insights(db)
    letters = await dead.list_dead(db, DeadFilter(), limit=DEAD_COUNTED + 1)
    under_way = (await run_lists.list_runs(db, run_lists.Filter(state=RunState.RUNNING), limit=RUNS_SHOWN)).rows
    standings, blocked = await db.read(lambda tx: budgets.overview_in(tx, settings.calendar))
    return found | {
        "now": isoformat(await db.read(instants.now)),
        "runs": dict(sum((Counter(queue.runs) for queue in queues), Counter())),
        "ended": sum(sum(queue.ended.values()) for queue in queues),
        "lanes": _lanes(queues),
        "workers": [
            view(row) | {"is_live": is_live(row)}
            for row in await workers.list_workers(db, limit=WORKERS_SHOWN)
            if row["state"] in ("running", "draining")
        ],
        "under_way": [_short(run_view(row)) for row in under_way],
        "spending": [
            {
                "period": each.period,
                "settled_microusd": each.settled,
                "reserved_microusd": each.reserved,
                "limit_microusd": each.limit,
            }
            for each in standings
        ],
        "alerts": (await db.read(alerts.overview_in))["firing"],
        "blocked_runs": blocked,
        "approvals": await _approvals(db),
        "dead": min(len(letters), DEAD_COUNTED),
        "has_more_dead": len(letters) > DEAD_COUNTED,
        "switches": [row["scope"] for row in await switches.list_switches(db)],
    }


def _short(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in RUN_FIELDS}


def _lanes(queues: Sequence[QueueInsight]) -> list[Mapping[str, Any]]:
    """What waits and runs in each lane, in the order in which lanes come."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    oldest: dict[str, float] = defaultdict(float)
    for queue in queues:
        found[queue.lane].update(queue.runs)
        oldest[queue.lane] = max(oldest[queue.lane], queue.oldest_age_seconds)
    order = [str(lane) for lane in LANE_ORDER]
    return [
        {
            "lane": lane,
            "queued": found[lane][RunState.QUEUED],
            "running": found[lane][RunState.RUNNING],
            "waiting": found[lane][RunState.WAITING],
            "oldest_age_seconds": round(oldest[lane], 3),
        }
        for lane in [*order, *sorted(found.keys() - set(order))]
    ]


async def _approvals(db: Database) -> int:
    rows = await db.read(lambda tx: tx.fetch_all("approval_counts", tenant=None))
    return sum(int(row["approvals"]) for row in rows)
