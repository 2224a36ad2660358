"""Asking people: an approval comes into being with the checkpoint of its run, lapses at its deadline, and is withdrawn
when its run ends. Each time those who are to decide are told, by runs of the notifying agent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from pilothouse import payloads
from pilothouse.control import audit, runs, waits
from pilothouse.domain.approvals import ApprovalState
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.errors import Refused
from pilothouse.store.database import Database, Row, Transaction

NOTIFY_AGENT = "pilothouse.notify"
"""The built-in agent that tells people of an approval."""

LAPSED_AT_ONCE = 500
WAIT_KIND: Literal["approval"] = "approval"


class Ask(NamedTuple):
    """An approval that a step asks for. `alternatives`, `arguments`, `arguments_schema` and `reasons` are JSON."""

    id: str
    key: str
    round: int
    kind: str
    action: str
    title: str
    recommendation: str
    reasoning: str
    risk_assessment: str
    risk: int
    confidence: float | None
    cost_microusd: int
    billing: str
    people_affected: int
    is_reversible: int
    alternatives: str
    arguments: str
    arguments_hash: str
    arguments_schema: str | None
    reasons: str
    quorum: int
    reviewer: str
    policy_version: str | None
    on_deadline: str
    deadline_us: int | None
    channels: tuple[str, ...] = ()


def insert_asks(tx: Transaction, asks: Sequence[tuple[str, Ask]]) -> None:
    """Records what runs ask for, as (run id, ask), with its audit, and queues the messages to those who decide."""
    if not asks:
        return
    rows = [{"run_id": run_id, **{n: v for n, v in ask._asdict().items() if n != "channels"}} for run_id, ask in asks]
    channels = {ask.id: ask.channels for _, ask in asks}
    made = tx.fetch_many("insert_approvals", rows)
    audit.record(tx, [_entry("approval.requested", row, f"run:{row['run_id']}", None, "pending") for row in made])
    queue_notices(tx, made, channels, "requested")


def queue_notices(tx: Transaction, rows: Sequence[Row], channels: dict[str, tuple[str, ...]], event: str) -> None:
    """Queues one run of the notifying agent for each approval and channel; what is refused is in the audit."""
    wanted = [(row, _notice(row, channel, event)) for row in rows for channel in channels.get(row["id"], ())]
    if not wanted:
        return
    answers = runs.submit_runs(tx, [request for _, request in wanted])
    refused = [
        _entry("approval.notice_refused", row, "system:approvals", "pending", "pending", str(answer))
        for (row, _), answer in zip(wanted, answers, strict=True)
        if isinstance(answer, Refused)
    ]
    audit.record(tx, refused)


def _notice(row: Row, channel: str, event: str) -> runs.Request:
    """Once for each event; to be given to somebody else is another one."""
    mark = event if event != "delegated" else f"{event}:{payloads.digest(row['assigned_to'])}"
    return runs.Request(
        agent=NOTIFY_AGENT,
        input={"approval": row["id"], "channel": channel, "event": event},
        principal="system:approvals",
        tenant=row["tenant"],
        idempotency_key=f"notice:{row['id']}:{mark}:{channel}"[: runs.MAX_KEY_LENGTH],
    )


def withdraw_ended(tx: Transaction, settled: Sequence[Row], asking: Collection[str], *, principal: str) -> None:
    """The same for those that have ended. What has succeeded without ever asking has nothing to take back."""
    ended = [row for row in settled if row["state"] in TERMINAL]
    withdraw(
        tx, [row for row in ended if row["state"] != RunState.SUCCEEDED or row["id"] in asking], principal=principal
    )


def withdraw(tx: Transaction, ended: Sequence[Row], *, principal: str) -> None:
    """Takes back what runs that have ended still ask for. The rows of the runs are locked by the caller."""
    withdrawn = tx.fetch_many("withdraw_approvals", [{"run_id": row["id"]} for row in ended])
    reason = "its run has ended"
    audit.record(
        tx, [_entry("approval.withdrawn", row, principal, "pending", "withdrawn", reason) for row in withdrawn]
    )


# --- deadlines ---------------------------------------------------------------------------------


async def pass_deadlines(db: Database, channels: tuple[str, ...] = (), *, principal: str) -> int:
    """Lets every approval whose deadline has passed expire, or goes to senior reviewers with it; how many it were."""
    total = 0
    while True:
        passed = await db.transaction(lambda tx: pass_batch(tx, channels, principal=principal))
        total += passed
        if passed:
            db.notify(runs.WAKE_RUNS)
        if passed < LAPSED_AT_ONCE:
            return total


def pass_batch(tx: Transaction, channels: tuple[str, ...] = (), *, principal: str) -> int:
    """The next of them, a bounded number at once."""
    due = tx.fetch_all("due_approvals", limit=LAPSED_AT_ONCE)
    if not due:
        return 0
    waits.lock_runs(tx, [row["run_id"] for row in due])
    passed = tx.fetch_many("pass_deadlines", [{"id": row["id"]} for row in due])
    expired = [row for row in passed if row["state"] == ApprovalState.EXPIRED]
    waits.release(tx, [{"run_id": row["run_id"], "kind": WAIT_KIND, "name": row["id"]} for row in expired])
    audit.record(tx, [_passed_entry(row, principal) for row in passed])
    escalated = [row for row in passed if row["on_deadline"] == "escalate"]
    queue_notices(tx, escalated, {row["id"]: channels for row in escalated}, "escalated")
    return len(due)


def _passed_entry(row: Row, principal: str) -> audit.AuditRow:
    action, told = {
        "expire": ("approval.expired", "nobody decided before its deadline"),
        "escalate": ("approval.escalated", "nobody decided before its deadline; senior reviewers are asked"),
        "wait": ("approval.overdue", "nobody decided before its deadline; it is waited for as before"),
    }[row["on_deadline"]]
    return _entry(action, row, principal, "pending", row["state"], told)


def _entry(
    action: str, row: Row, principal: str, before: str | None, after: str, reason: str | None = None
) -> audit.AuditRow:
    told = reason or row.get("title")
    facts: dict[str, Any] = {"tenant": row["tenant"], "run_id": row["run_id"], "reason": told}
    return audit.entry(action, "approval", row["id"], principal=principal, before=before, after=after, **facts)


def answered(tx: Transaction, run_id: str, approval_id: str) -> Row | None:
    """An approval of a run as its attempt reads it."""
    row = tx.fetch_one("approval_by_id", id=approval_id)
    return row if row is not None and row["run_id"] == run_id else None
