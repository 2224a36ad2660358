"""Glances: what all processes share, as one of them saw it last. It looks again a few times a second."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database, Row

LOOK_SECONDS = 0.25
"""How old what was seen may be."""


class Glance:
    """The rows of one statement."""

    def __init__(self, db: Database, statement: str) -> None:
        self._db = db
        self._statement = statement
        self._looked_at: float | None = None

    async def look(self) -> Sequence[Row] | None:
        """The rows; None where those seen last are new enough, or the database does not answer and they must do."""
        moment = self._db.clock.monotonic()
        if self._looked_at is not None and moment - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = moment
        try:
            return await self._db.read(lambda tx: tx.fetch_all(self._statement))
        except StoreUnavailable:
            return None

    def forget(self) -> None:
        """What was seen is no longer true: the next look asks the database."""
        self._looked_at = None
