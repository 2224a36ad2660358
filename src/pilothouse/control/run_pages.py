"""What a person looks at who opens one run: what it was given and has made, its steps, its family, its log."""

from __future__ import annotations

from typing import Any, Literal

from pilothouse.control import blobs, calls, run_budgets, runs
from pilothouse.control.views import attempt_view, run_view, view
from pilothouse.errors import NotFound
from pilothouse.store.database import Database, Row, Transaction

STEPS_SHOWN = 400
TEXT_SHOWN = 20_000
FAMILY_SHOWN = 100
LOGS_SHOWN = 200
RECORDS_SHOWN = 200

Text = Literal["input", "output", "error", "request", "result"]


async def look(db: Database, run_id: str, *, tenant: str | None) -> dict[str, Any]:
    """The run with its attempts, steps by key, model calls, family, signals, waits (also the limits that it waits for),
    log and records.

    Requests and results of steps are JSON texts, cut where they are long. Raises NotFound, also where the run is not
    of `tenant`; None: any.
    """
    return await db.read(lambda tx: _look(tx, run_id, tenant))


def _look(tx: Transaction, run_id: str, tenant: str | None) -> dict[str, Any]:
    run = _run_of(tx, run_id, tenant)
    model_calls, _ = calls.calls_of_run(tx, run_id)
    steps = tx.fetch_all("shown_steps", run_id=run_id, most=TEXT_SHOWN, limit=STEPS_SHOWN)
    return {
        "run": run_view(run),
        "attempts": [attempt_view(row) for row in tx.fetch_all("attempts_of_run", run_id=run_id)],
        "steps": {row["key"]: _step(row) for row in steps},
        "model_calls": [view(row) for row in model_calls],
        "signals": [view(row) for row in tx.fetch_all("signals_of_run", run_id=run_id)],
        "waits": tx.fetch_all("waits_of_run", run_id=run_id),
        "without_room": run_budgets.waited_for(tx, run),
        "budget": run_budgets.summary(tx, run_id),
        "family": [run_view(row) for row in tx.fetch_all("family_of_run", root_id=run["root_id"], limit=FAMILY_SHOWN)],
        "logs": [view(row) for row in tx.fetch_all("logs_of_run", run_id=run_id, after=0, limit=LOGS_SHOWN)],
        "records": [
            view(row) for row in tx.fetch_all("audit_of_entity", entity_id=run_id, after=0, limit=RECORDS_SHOWN)
        ],
    }


def _step(row: Row) -> Row:
    return view({name: value for name, value in row.items() if name not in ("request", "result")}) | {
        "request": row["request"],
        "result": row["result"],
    }


async def whole_text(db: Database, run_id: str, name: Text, *, key: str | None, tenant: str | None) -> str:
    """A JSON text as it is stored: the run's own, or of the step `key`. Raises NotFound."""
    return await db.read(lambda tx: _text(tx, run_id, name, key, tenant))


def _text(tx: Transaction, run_id: str, name: Text, key: str | None, tenant: str | None) -> str:
    row: Row | None = _run_of(tx, run_id, tenant)
    if key is not None:
        row = tx.fetch_one("whole_step", run_id=run_id, key=key)
    text = None if row is None else blobs.unpack(tx, [row], name)[0][name] if name in row else None
    if text is None:
        raise NotFound(f"run {run_id} has no {name}" + (f" of step {key!r}" if key is not None else ""))
    return str(text)


def _run_of(tx: Transaction, run_id: str, tenant: str | None) -> Row:
    run = runs.run_in(tx, run_id)
    if tenant not in (None, run["tenant"]):
        raise runs.unknown_run(run_id)
    return run
