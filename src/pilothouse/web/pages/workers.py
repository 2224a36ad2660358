"""Workers: who runs, what each holds now, and a button that lets one finish and leave."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from fastapi import APIRouter, Request, Response

from pilothouse.control import readiness, workers
from pilothouse.control.views import view
from pilothouse.control.workers import Crew
from pilothouse.web.access import caller_of
from pilothouse.web.backend import BackendOf
from pilothouse.web.pages.forms import FormOf
from pilothouse.web.pages.showing import PageRoute, redirect, show

router = APIRouter(include_in_schema=False, route_class=PageRoute)

WORKERS_SHOWN = 100
GONE_SHOWN = 20
RUNS_OF_ONE = 12
SHARED = "shared"


@router.get("/workers")
async def list_page(request: Request, backend: BackendOf) -> Response:
    crew = await workers.look(backend.db, limit=WORKERS_SHOWN)
    shown = _shown(crew)
    here = [worker for worker in shown if worker["is_here"]]
    gone = [worker for worker in shown if not worker["is_here"]][:GONE_SHOWN]
    return show(request, "workers.html", workers=here, gone=gone, is_cut=len(crew.workers) == WORKERS_SHOWN)


@router.post("/workers/{id}/drain")
async def drain(id: str, request: Request, backend: BackendOf, form: FormOf) -> Response:
    await workers.drain_worker(backend.db, id, principal=caller_of(request).principal)
    return redirect(request, "/workers", f"Worker {id} is draining: it finishes what runs and claims nothing.")


def _shown(crew: Crew) -> list[dict[str, Any]]:
    held: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in crew.attempts:
        held[row["worker_id"]].append(row)
    return [_worker(row, held[row["id"]], crew.epoch) for row in crew.workers]


def _worker(row: dict[str, Any], attempts: list[dict[str, Any]], epoch: int) -> dict[str, Any]:
    worker, is_here = view(row), row["state"] in ("running", "draining")
    is_late = is_here and row["lease_until"] < row["now"]
    state = "lost" if is_late else "live" if row["state"] == "running" else row["state"]
    return worker | {
        "is_here": is_here,
        "shown_state": state if worker["is_enabled"] or state != "live" else "disabled",
        "may_drain": readiness.is_live(row),
        "lanes": _lanes(worker["slots"], Counter(each["lane"] for each in attempts)),
        "total_slots": sum(worker["slots"].values()),
        "attempts": [view(each) for each in attempts[:RUNS_OF_ONE]],
        "is_behind": is_here and row["switch_epoch"] < epoch,
    }


def _lanes(slots: dict[str, int], used: Counter[str]) -> list[dict[str, Any]]:
    """Each lane with its own slots and how many of them are in use; what a lane uses beyond its own is shared."""
    own = {lane: size for lane, size in slots.items() if lane != SHARED}
    beyond = sum(max(0, used[lane] - size) for lane, size in own.items())
    lanes = [{"lane": lane, "used": min(used[lane], size), "slots": size} for lane, size in own.items()]
    return lanes + ([{"lane": SHARED, "used": beyond, "slots": slots[SHARED]}] if slots.get(SHARED) else [])
