"""Strays: attempts that the database holds for a live worker, and that the worker does not know of.

There should be none. But nobody else would ever end one, because its worker's lease goes on; so each worker looks.
"""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.control import attempts
from pilothouse.control.attempts import AttemptKey
from pilothouse.engine.pump import Pump
from pilothouse.store.database import Database

LOOK_SECONDS = 5.0


class Strays:
    """One worker's; `knows` says whether an attempt is known to it."""

    def __init__(self, db: Database, worker_id: str, pump: Pump, knows: Callable[[AttemptKey], bool]) -> None:
        self._db = db
        self._worker_id = worker_id
        self._pump = pump
        self._knows = knows
        self._suspects: frozenset[AttemptKey] = frozenset()
        self._looked_at = db.clock.monotonic()

    async def give_up(self) -> set[AttemptKey]:
        """Ends as lost those that were there at the look before already; none where it is not time for a look yet.

        Whoever was claimed before that look is known by now, unless the answer to its claim is still on its way.
        """
        looked_at = self._looked_at
        if self._db.clock.monotonic() - looked_at < LOOK_SECONDS:
            return set()
        self._looked_at = self._db.clock.monotonic()
        suspects, self._suspects = self._suspects, frozenset()
        held = await self._db.read(lambda tx: attempts.held_by(tx, self._worker_id))
        self._suspects = frozenset(key for key in held if not self._knows(key))
        strays = suspects & self._suspects
        if not strays or self._pump.under_way_since <= looked_at:
            return set()
        return await self._db.transaction(lambda tx: attempts.lose_attempts(tx, self._worker_id, strays))
