"""Notices of alerts: who is told of which episode's start and end, how many messages go out, and what a digest holds.

Each message is a run of the notifying agent, queued in the transaction that takes its notices along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilothouse.clock import new_id
from pilothouse.control import audit, runs
from pilothouse.control.asking import NOTIFY_AGENT
from pilothouse.control.instants import now
from pilothouse.domain.alerts import AlertState, Matcher, Severity, room
from pilothouse.domain.notices import recipient_of
from pilothouse.errors import Refused
from pilothouse.store.database import Database, Row, Transaction

WINDOW_US = 600_000_000
"""The limit of messages is for so long."""

MOST_AT_ONCE = 200
"""How many notices one turn takes along, for each channel."""

MAX_SILENCES = MOST_LOOKED_AT = 1_000
PRINCIPAL = "system:alerts"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where alerts are told of, from which severity on, and how many messages a channel gets in ten minutes."""

    channels: tuple[str, ...] = ()
    least: Severity = Severity.WARNING
    limit: int = 10


def tell(tx: Transaction, delivery: Delivery, changes: Sequence[Row]) -> int:
    """Queues the messages that are due; how many. Of an episode at most its start and its end are told, once each."""
    if not delivery.channels:
        return 0
    silences = live_silences(tx)
    starts = tx.fetch_all("untold_alerts", limit=MOST_LOOKED_AT)
    grave = [row for row in starts if Severity(row["severity"]).rank >= delivery.least.rank]
    loud = [row for row in grave if not is_silenced(row, silences)]
    ends = [row for row in changes if row["state"] == AlertState.RESOLVED and row["told_at"] is not None]
    _hold(tx, delivery, loud, "firing")
    _hold(tx, delivery, [row for row in ends if not is_silenced(row, silences)], "resolved")
    tx.send_many("tell_alerts", [{"id": row["id"]} for row in loud])
    return sum(_flush(tx, channel, delivery.limit) for channel in delivery.channels)


def live_silences(tx: Transaction) -> list[Row]:
    return tx.fetch_all("live_silences", limit=MAX_SILENCES)


def is_silenced(alert: Mapping[str, str], silences: Iterable[Mapping[str, str]]) -> bool:
    return any(
        Matcher(each["rule"], each["subject"], each["agent"]).covers(alert["rule"], alert["subject"], alert["agent"])
        for each in silences
    )


def _hold(tx: Transaction, delivery: Delivery, rows: Sequence[Row], event: str) -> None:
    recipients = [recipient_of(channel) for channel in delivery.channels]
    tx.send_many(
        "hold_notices",
        [{"alert_id": row["id"], "event": event, "recipient": each} for row in rows for each in recipients],
    )


def _flush(tx: Transaction, channel: str, limit: int) -> int:
    """Sends what a channel has room for: each notice alone, or those that are too many in one digest."""
    recipient = recipient_of(channel)
    held = tx.fetch_all("held_notices", recipient=recipient, limit=MOST_AT_ONCE)
    if not held:
        return 0
    sent = tx.fetch_one("sent_messages", recipient=recipient, since=now(tx) - WINDOW_US)
    alone, has_digest = room(int(sent["messages"]) if sent else 0, len(held), limit)
    batches = [[row] for row in held[:alone]] + ([held[alone:]] if has_digest else [])
    return sum(_send(tx, channel, batch) for batch in batches)


def _send(tx: Transaction, channel: str, batch: Sequence[Row]) -> bool:
    """One message. False where nobody takes it yet: no worker has made the notifying agent known, say."""
    message = new_id()
    (answer,) = runs.submit_runs(tx, [_request(message, channel, PRINCIPAL)])
    if isinstance(answer, Refused):
        return False
    names = [{"alert_id": row["alert_id"], "event": row["event"]} for row in batch]
    tx.send_many("send_notices", [each | {"recipient": recipient_of(channel), "message": message} for each in names])
    return True


def _request(message: str, channel: str, principal: str) -> runs.Request:
    return runs.Request(
        agent=NOTIFY_AGENT,
        input={"message": message, "channel": channel},
        principal=principal,
        idempotency_key=f"alert-message:{message}",
    )


async def send_test(db: Database, channel: str, *, principal: str) -> str:
    """Sends a test message to a channel, as a run; its id. Raises NotFound where no worker knows of any channel."""
    run_id = await db.transaction(lambda tx: _send_test(tx, channel, principal))
    db.notify(runs.WAKE_RUNS)
    return run_id


def _send_test(tx: Transaction, channel: str, principal: str) -> str:
    message, recipient = new_id(), recipient_of(channel)
    (answer,) = runs.submit_runs(tx, [_request(message, channel, principal)])
    if isinstance(answer, Refused):
        raise answer
    notice = {"alert_id": message, "event": "test", "recipient": recipient}
    tx.send_many("hold_notices", [notice])
    tx.send_many("send_notices", [notice | {"message": message}])
    audit.record(tx, [audit.entry("alert.tested", "alert", message, principal=principal, reason=recipient)])
    return answer.id


async def notices_of(db: Database, message: str) -> list[Row]:
    """What a message tells: an alert each with its `notice` (firing, resolved or test), in the order of what happened.

    Of a test, and of an alert that was erased meanwhile, `id` is None.
    """
    return await db.read(lambda tx: tx.fetch_all("notices_of_message", message=message))
