"""Admission: bounded queues. A queue that is full refuses new runs at once, instead of letting them wait for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pilothouse.domain.queues import QueueLimits
from pilothouse.errors import QueueFull, Refused
from pilothouse.store.database import Row, Transaction

FRESH_SECONDS = 0.2
"""How long a process relies on the depths that it read. Others that submit meanwhile can overshoot by as much."""

RETRY_AFTER_SECONDS = 5.0

Queue = tuple[str, str]
"""("lane", its name) or ("tenant", its name)"""


class Admission:
    """Says of each new run whether its lane and its tenant have room. One per process."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = {"lane": limits.per_lane, "tenant": limits.per_tenant}
        self._depths: Counter[Queue] = Counter()
        self._read_at = float("-inf")

    def admit(self, tx: Transaction, planned: Sequence[Row | Refused], now: float) -> list[Row | Refused]:
        """The rows that fit, in their places; QueueFull in the place of each that does not. `now` in seconds."""
        if now - self._read_at > FRESH_SECONDS:
            self._depths, self._read_at = _read_depths(tx), now
        return [row if isinstance(row, Refused) else self._admit(row) for row in planned]

    def _admit(self, row: Row) -> Row | Refused:
        queues: list[Queue] = [("lane", row["lane"]), ("tenant", row["tenant"])]
        for queue in queues:
            limit = self._limits[queue[0]]
            if self._depths[queue] >= limit:
                return _full(*queue, limit)
        self._depths.update(queues)
        return row


def _full(kind: str, name: str, limit: int) -> QueueFull:
    told = f"the queue of {kind} {name!r} is full: {limit} runs wait in it; try again in {RETRY_AFTER_SECONDS:.0f} s"
    return QueueFull(f"{told}, add workers, or raise max_queued_per_{kind}", retry_after_seconds=RETRY_AFTER_SECONDS)


def _read_depths(tx: Transaction) -> Counter[Queue]:
    return Counter({(row["kind"], row["name"]): int(row["depth"]) for row in tx.fetch_all("queue_depths")})
