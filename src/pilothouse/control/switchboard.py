"""The switchboard: which kill switches are tripped, as a transaction sees them, and as a process has seen them last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilothouse.clock import Clock, SystemClock
from pilothouse.control.concurrency import AgentVersion
from pilothouse.domain.lanes import LANE_ORDER, Demand
from pilothouse.domain.switches import (
    GLOBAL,
    Switch,
    SwitchMode,
    Target,
    Tripped,
    aborting,
    names_of,
    stopping,
)
from pilothouse.errors import Refused, SwitchedOff
from pilothouse.store.database import Database, Row, Transaction

WAKE_SWITCHES = "switches"

FRESH_SECONDS = 0.25
"""How old the last look may be for an effect to start on it: so long after its commit, a switch stops every effect."""

LOOK_SECONDS = 0.1
"""How often a worker looks, beside each hint."""


# --- what a transaction sees -------------------------------------------------------------------


def tripped_in(tx: Transaction) -> Tripped:
    """The tripped switches by their scopes."""
    return _read(tx.fetch_all("switches_now"))[1]


def _read(rows: Iterable[Row]) -> tuple[int, Tripped]:
    latest, tripped = 0, dict[str, Switch]()
    for row in rows:
        latest = row["latest"]
        if row["scope"] is not None:
            tripped[row["scope"]] = _switch({name: value for name, value in row.items() if name != "latest"})
    return latest, tripped


def _switch(row: Row) -> Switch:
    return Switch(**{**row, "mode": SwitchMode(row["mode"])})


@dataclass(frozen=True, slots=True)
class Claimable:
    """What of a worker's wishes no switch keeps back."""

    demand: Demand
    agents: Sequence[AgentVersion]
    held_tenants: Sequence[str] = ()


def claimable(tripped: Tripped, demand: Demand, agents: Sequence[AgentVersion]) -> Claimable:
    """Takes out what may not be claimed now."""
    if not tripped:
        return Claimable(demand, agents)
    if GLOBAL in tripped:
        return Claimable(Demand({}, 0), ())
    lanes, names, versions = (names_of(tripped, kind) for kind in ("lane", "agent", "version"))
    return Claimable(
        demand.only([lane for lane in LANE_ORDER if lane not in lanes]),
        [agent for agent in agents if agent.name not in names and agent.fingerprint not in versions],
        sorted(names_of(tripped, "tenant")),
    )


def turn_away(tx: Transaction, planned: Sequence[Row | Refused]) -> Sequence[Row | Refused]:
    """Refuses the planned runs that a switch in mode abort is about; the others wait in the queue for their turn."""
    tripped = {scope: switch for scope, switch in tripped_in(tx).items() if switch.mode == SwitchMode.ABORT}
    if not tripped:
        return planned
    versions = _versions(tx, planned) if names_of(tripped, "version") else {}
    return [_refusal(tripped, row, versions) or row if isinstance(row, dict) else row for row in planned]


def _versions(tx: Transaction, planned: Sequence[Row | Refused]) -> Mapping[str, str]:
    names = sorted({row["agent"] for row in planned if isinstance(row, dict)})
    rows = tx.fetch_many("agents_by_name", [{"name": name} for name in names])
    return {row["name"]: row["fingerprint"] for row in rows}


def _refusal(tripped: Tripped, run: Row, versions: Mapping[str, str]) -> SwitchedOff | None:
    switch = aborting(tripped, Target(run["tenant"], run["agent"], run["lane"], versions.get(run["agent"])))
    if switch is None:
        return None
    return SwitchedOff(
        f"agent {run['agent']!r} takes no runs now: {switch.told()}; submit again once it is reset "
        f"(`pilothouse switch reset {switch.scope}`)"
    )


# --- what a process keeps in memory ------------------------------------------------------------


class Switches:
    """The tripped switches as one process has seen them last. `on_change` is called when it sees another epoch."""

    def __init__(self, db: Database, clock: Clock | None = None) -> None:
        self._db = db
        self._clock = clock or SystemClock()
        self._tripped: Tripped = {}
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self.epoch: int | None = None
        self.on_change: Callable[[], None] | None = None

    @property
    def tripped(self) -> Tripped:
        return self._tripped

    @property
    def is_fresh(self) -> bool:
        """Whether the last look is new enough for an effect to start on it. While the database is away, it gets old."""
        return self._clock.monotonic() - self._looked_at < FRESH_SECONDS

    def held(self, target: Target, tool: str | None = None) -> Switch | None:
        """The switch that keeps an effect from starting, by what was seen last."""
        return stopping(self._tripped, target, tool) if self._tripped else None

    async def look(self) -> None:
        """Looks, or waits for a look that is under way. Raises StoreUnavailable."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(self._forget_look)
        await asyncio.shield(self._looking)

    async def refresh(self) -> None:
        """Returns after a look that began no earlier than this, or that is fresh. Raises StoreUnavailable."""
        if self._looking is not None:
            await self.look()
            if self.is_fresh:
                return
        await self.look()

    async def _look(self) -> None:
        began = self._clock.monotonic()
        epoch, tripped = _read(await self._db.read(lambda tx: tx.fetch_all("switches_now")))
        self._tripped, self._looked_at = tripped, began
        if epoch != self.epoch:
            self.epoch = epoch
            if self.on_change is not None:
                self.on_change()

    def _forget_look(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # who waits for it has it too; maybe nobody does any more
