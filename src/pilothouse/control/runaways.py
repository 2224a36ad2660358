"""How fast the runs of a version usually use tokens, as one process has seen it last."""

from __future__ import annotations

from pilothouse.clock import Clock, SystemClock
from pilothouse.domain.runaways import Excess, RunawayRule, velocity_limit
from pilothouse.errors import StoreUnavailable
from pilothouse.store.database import Database, Row, Transaction

LOOK_SECONDS = 60.0
HISTORY_US = 7 * 86_400_000_000
CALLS_LOOKED_AT = 20_000


class Runaways:
    """The rule, and the limits that follow from history, by the fingerprints of versions."""

    def __init__(self, db: Database, rule: RunawayRule | None = None, clock: Clock | None = None) -> None:
        self._db = db
        self._clock = clock or SystemClock()
        self._limits: dict[str, int | None] = {}
        self._looked_at: dict[str, float] = {}
        self.rule = rule or RunawayRule()

    async def too_fast(self, tokens: int, version: str) -> Excess | None:
        """Whether so many tokens in this minute are far beyond what runs of the version have ever used."""
        if tokens <= 0 or self.rule.velocity <= 0:
            return None
        limit = await self._limit(version)
        return Excess(tokens, limit) if limit is not None and tokens > limit else None

    async def _limit(self, version: str) -> int | None:
        moment = self._clock.monotonic()
        if moment - self._looked_at.get(version, float("-inf")) >= LOOK_SECONDS:
            self._looked_at[version] = moment
            try:
                rows = await self._db.read(lambda tx: token_peaks(tx, version))
            except StoreUnavailable:
                return self._limits.get(version)  # the effect itself waits for the database
            self._limits[version] = velocity_limit([int(row["peak"]) for row in rows], self.rule.velocity)
        return self._limits.get(version)


def token_peaks(tx: Transaction, version: str) -> list[Row]:
    """The most tokens of one minute, of each run of a version that has succeeded lately."""
    return tx.fetch_all("token_peaks", version=version, history_us=HISTORY_US, calls=CALLS_LOOKED_AT)
