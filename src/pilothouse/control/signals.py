"""Signals: messages to a run, kept from before it waits for them; the first of a name wins."""

from __future__ import annotations

from typing import Any

from pilothouse import payloads
from pilothouse.control import audit, runs, waits
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import Conflict, FieldError, InvalidInput
from pilothouse.store.database import Database, Row, Transaction


async def send_signal(db: Database, run_id: str, name: str, payload: Any, *, principal: str) -> bool:
    """Sends a signal; False where one of this name was there already, whose payload then stands.

    Raises NotFound, Conflict where the run has ended, InvalidInput where the payload is not JSON.
    """
    if not 0 < len(name) <= runs.MAX_KEY_LENGTH:
        raise InvalidInput("the name of a signal has 1 to 255 characters", [FieldError("name", "1 to 255 characters")])
    try:
        text = payloads.encode(payload)
    except ValueError as error:
        raise InvalidInput(f"the payload {error}", [FieldError("payload", str(error))]) from error
    is_first = await db.transaction(lambda tx: _send(tx, run_id, name, text, principal))
    db.notify(runs.WAKE_RUNS)
    return is_first


def _send(tx: Transaction, run_id: str, name: str, payload: str, principal: str) -> bool:
    run = tx.fetch_one("lock_run", id=run_id)
    if run is None:
        raise runs.unknown_run(run_id)
    if run["state"] in TERMINAL:
        raise Conflict(f"run {run_id} has {run['state']} already; nothing waits for signal {name!r}")
    if tx.fetch_one("insert_signal", run_id=run_id, name=name, payload=payload, principal=principal) is None:
        return False
    waits.release(tx, [{"run_id": run_id, "kind": "signal", "name": name}])
    _record(tx, run, name, principal)
    return True


def _record(tx: Transaction, run: Row, name: str, principal: str) -> None:
    entry = audit.entry(
        "run.signalled",
        "run",
        run["id"],
        principal=principal,
        tenant=run["tenant"],
        before=run["state"],
        after=run["state"],
        reason=name,
    )
    audit.record(tx, [entry])
