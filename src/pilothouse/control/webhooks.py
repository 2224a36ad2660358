"""Webhooks: when a run ends, a run of the delivery agent tells its URL, with attempts and backing off like any run.

The delivery is queued in the transaction that ends the run: it is neither forgotten, nor queued for a run that goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from pilothouse.control import audit, runs
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import Refused
from pilothouse.store.database import Row, Transaction


def queue_deliveries(tx: Transaction, settled: Sequence[Row], *, principal: str) -> None:
    """Queues a delivery for each row that has ended and has a URL."""
    ended = [row for row in settled if row["webhook_url"] and row["state"] in TERMINAL]
    if not ended:
        return
    wanted = [_delivery(row) for row in ended]
    answers = runs.submit_runs(tx, wanted)
    for row, answer in zip(ended, answers, strict=True):
        told = str(answer) if isinstance(answer, Refused) else f"run {answer.id} tells {_host(row['webhook_url'])}"
        action = "run.webhook_refused" if isinstance(answer, Refused) else "run.webhook_queued"
        entry = audit.entry(action, "run", row["id"], principal=principal, tenant=row["tenant"], reason=told)
        audit.record(tx, [entry])


def _delivery(row: Row) -> runs.Request:
    return runs.Request(
        agent=runs.DELIVERY_AGENT,
        input={"run": row["id"], "url": row["webhook_url"]},
        principal=f"run:{row['id']}",
        tenant=row["tenant"],
    )


def _host(url: str) -> str:
    """A URL may hold a password or a token; its host does not."""
    return urlsplit(url).hostname or ""
