"""The waterfall of a run: its spans, where its time went and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pilothouse import payloads
from pilothouse.clock import isoformat
from pilothouse.control import instants, runs
from pilothouse.domain.gaps import Facts
from pilothouse.domain.waterfall import Span, waterfall
from pilothouse.store.database import Database, Row, Transaction

SPANS_TOLD = 5000
"""A run with more says that it was cut."""

_ORDERS = {
    "attempt_spans": ("number",),
    "step_spans": ("started_at", "key"),
    "model_call_spans": ("started_at", "key", "attempt", "number"),
    "tool_call_spans": ("started_at", "key", "attempt"),
    "effect_spans": ("intended_at", "id"),
    "approval_spans": ("id",),
    "signal_spans": ("created_at",),
    "child_spans": ("id",),
    "wait_spans": ("kind", "name"),
    "wait_notes": ("seq",),
}


async def waterfall_of(db: Database, run_id: str) -> dict[str, Any]:
    """The run's `spans`, `where_time_went` in microseconds by part, and its `cost`. Raises NotFound."""
    return await db.read(lambda tx: _waterfall(tx, run_id))


def _waterfall(tx: Transaction, run_id: str) -> dict[str, Any]:
    (facts,) = facts_of(tx, [runs.run_in(tx, run_id)])
    found = waterfall(facts)
    return {
        "run": run_id,
        "state": facts.run["state"],
        "started_at": isoformat(found.started_at),
        "ended_at": None if found.ended_at is None else isoformat(found.ended_at),
        "now": isoformat(facts.now),
        "total_us": found.total_us,
        "where_time_went": found.where_time_went,
        "cost": found.cost,
        "is_cut": len(found.spans) > SPANS_TOLD,
        "spans": [_public(span) for span in found.spans[:SPANS_TOLD]],
    }


def _public(span: Span) -> dict[str, Any]:
    ended = None if span.ended_at is None else isoformat(span.ended_at)
    return asdict(span) | {"started_at": isoformat(span.started_at), "ended_at": ended}


def facts_of(tx: Transaction, found: Sequence[Row]) -> list[Facts]:
    """What the store knows of some runs, in their order."""
    ids = [{"id": run["id"]} for run in found]
    by_run: dict[str, dict[str, list[Row]]] = {name: defaultdict(list) for name in _ORDERS}
    for name, order in _ORDERS.items():
        rows = tx.fetch_many(name, ids)
        for row in sorted(rows, key=lambda row: tuple(row[column] for column in order)):
            by_run[name][row["run_id"]].append(_decoded(row))
    at = instants.now(tx)
    return [Facts(run, at, *(by_run[name][run["id"]] for name in _ORDERS)) for run in found]


def _decoded(row: Row) -> Row:
    texts = {name: row[name] for name in ("error", "result") if row.get(name) is not None}
    return row | {name: payloads.decode(text) for name, text in texts.items()} if texts else row
