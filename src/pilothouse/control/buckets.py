"""Buckets: what may go to a model with a key per minute, from all workers together, and what the provider refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pilothouse.control.glances import Glance
from pilothouse.domain.buckets import Bucket, give_back, stand_in_line, take
from pilothouse.domain.lanes import Lane
from pilothouse.store.database import Database, Row, Transaction

Wanted = tuple[Bucket, int]
"""A bucket and the units to take from it."""


class Block(NamedTuple):
    """Nothing goes out for `seconds` more, for `reason`."""

    seconds: float
    reason: str


class Buckets:
    """The buckets as one process sees them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._blocked: dict[str, tuple[int, str]] = {}
        self._lines: dict[tuple[str, Lane], int] = {}
        self._glance = Glance(db, "blocked_buckets")

    async def blocked(self, name: str) -> Block | None:
        """Whether nothing may go out under this name for now."""
        await self._look()
        until, reason = self._blocked.get(name, (0, ""))
        left = until - self._db.clock.now_us()
        return Block(left / 1_000_000, reason) if left > 0 else None

    async def take(self, wanted: Sequence[Wanted], lane: Lane) -> int:
        """Takes from all the buckets or from none; how long to wait where one has too little, in microseconds.

        Those who wait in this process stand in a line, so that they do not all come back at once for the same room.
        """
        wait_us = await self.take_now(wanted, lane)
        if wait_us <= 0:
            return 0
        line, now = (wanted[0][0].name, lane), self._db.clock.now_us()
        self._lines[line], wait_us = stand_in_line(self._lines.get(line, 0), wanted, now, wait_us)
        return wait_us

    async def take_now(self, wanted: Sequence[Wanted], lane: Lane) -> int:
        """As `take`; how long there will be no room, whoever else waits for it."""
        return await self._db.transaction(lambda tx: _take(tx, wanted, lane))

    async def give_back(self, returned: Sequence[Wanted]) -> None:
        """Corrects what was taken on an estimate; negative units were used beyond it."""
        await self._db.transaction(lambda tx: _give_back(tx, returned))

    async def block(self, name: str, reason: str, *, seconds: float) -> None:
        """Nothing goes out under this name for so long, from no worker."""
        blocked_us = int(seconds * 1_000_000)
        self._blocked[name] = self._db.clock.now_us() + blocked_us, reason
        await self._db.transaction(
            lambda tx: tx.execute("block_bucket", name=name, blocked_us=blocked_us, reason=reason)
        )

    async def _look(self) -> None:
        rows = await self._glance.look()
        if rows is not None:
            here = self._db.clock.now_us()
            self._blocked = {row["name"]: (here + row["blocked_until"] - row["now"], row["reason"]) for row in rows}


def _take(tx: Transaction, wanted: Sequence[Wanted], lane: Lane) -> int:
    found = _lock(tx, wanted)
    after, longest = [], 0
    for bucket, units in wanted:
        row = found[bucket.name]
        due_at, wait_us = take(bucket._replace(due_at=row["due_at"]), units, row["now"], lane)
        longest = max(longest, wait_us, row["blocked_until"] - row["now"])
        after.append({"name": bucket.name, "due_at": due_at})
    if longest <= 0:
        tx.send_many("set_buckets", after)
    return max(0, longest)


def _give_back(tx: Transaction, returned: Sequence[Wanted]) -> None:
    found = _lock(tx, returned)
    rows = [
        {"name": bucket.name, "due_at": give_back(bucket._replace(due_at=found[bucket.name]["due_at"]), units)}
        for bucket, units in returned
    ]
    tx.send_many("set_buckets", rows)


def _lock(tx: Transaction, wanted: Sequence[Wanted]) -> dict[str, Row]:
    names = [{"name": bucket.name} for bucket, _ in wanted]
    tx.send_many("add_buckets", names)
    return {row["name"]: row for row in tx.fetch_many("buckets_by_name", names)}
