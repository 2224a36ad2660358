"""How rows look outside: instants as ISO 8601, JSON as JSON, `cancelling` while a cancel is not proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilothouse import payloads
from pilothouse.clock import isoformat
from pilothouse.domain.runs import RunState
from pilothouse.domain.traces import trace_id_of

if TYPE_CHECKING:
    from pilothouse.control.cancels import Lineage

CANCELLING = "cancelling"

_JSON_FIELDS = frozenset(
    {"input", "output", "error", "result", "payload", "fields", "agents", "slots", "usage", "arguments"}
)
_INSTANT_FIELDS = frozenset({"at", "lease_until", "now", "since"})
_INTERNAL_FIELDS = frozenset({"run_timeout_us", "state_versions", "webhook_url", "traceparent"})


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row, ready for JSON."""
    return {name: _value(name, value) for name, value in row.items() if name not in _INTERNAL_FIELDS}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _INSTANT_FIELDS or name.endswith("_at"):
        return isoformat(value)
    if name in _JSON_FIELDS:
        return payloads.decode(value)
    if name.startswith("is_"):
        return bool(value)
    return value


def shown_state(run: Mapping[str, Any]) -> str:
    is_cancelling = run["state"] == RunState.RUNNING and run["cancel_requested_at"] is not None
    return CANCELLING if is_cancelling else str(run["state"])


def run_view(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run, with its state as people see it, and the id of its trace."""
    shown = view(run) | {"state": shown_state(run)}
    if "traceparent" in run:
        shown["trace_id"] = trace_id_of(run["root_id"], run["traceparent"])
    return shown


def lineage_view(lineage: Lineage, *, dry_run: bool) -> dict[str, Any]:
    """What was cancelled, or would be."""
    return {
        "root_id": lineage.root_id,
        "dry_run": dry_run,
        "runs": [run_view(row) for row in lineage.runs],
        "reservations": [view(row) for row in lineage.reservations],
    }


def attempt_view(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """An attempt, with its public id."""
    return {"id": f"{attempt['run_id']}.{attempt['number']}"} | view(attempt)
