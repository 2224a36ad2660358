"""The gate before an effect: no call of a tool and no question to a model starts while a kill switch stops it.

What was seen of the switches last must be fresh, and is looked at once more in the moment in which the call starts.
While the database is away nobody knows of a new switch, so nothing starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from pilothouse.control import workers
from pilothouse.control.switchboard import LOOK_SECONDS, WAKE_SWITCHES, Switches
from pilothouse.control.waits import Wait
from pilothouse.domain.switches import Switch, SwitchMode, aborting
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.patience import patiently
from pilothouse.errors import StoreError, Withheld
from pilothouse.store.database import Database
from pilothouse.telemetry.events import Emitter, SwitchesSeen


async def pass_switches(attempt: Attempt, tool: str | None = None) -> None:
    """Returns once no switch stops the effect. Parks the run for one that does; one that aborts gives it back."""
    switch = await _freshly_held(attempt, tool)
    if switch is None:
        return
    if switch.mode == SwitchMode.ABORT and not switch.is_of_tool:
        attempt.stop("released", switch.told())
        await attempt.loop.create_future()
    await _park_for(attempt, switch)


async def _freshly_held(attempt: Attempt, tool: str | None) -> Switch | None:
    switches = attempt.services.around.switches
    if switches is None:
        return None
    if not switches.is_fresh:
        await patiently(switches.refresh)
    return switches.held(attempt.target, tool)


async def _park_for(attempt: Attempt, switch: Switch) -> NoReturn:
    wait = Wait("switch", switch.scope, f"switch {switch.scope}")
    await attempt.park_anywhere((wait,), None, f"held by {switch.told()}")


class EffectGate:
    """The gate of one effect, which has passed the switches before. It does not park: what was made ready for the
    effect meanwhile has to be taken back first, by whoever catches Withheld.
    """

    def __init__(self, attempt: Attempt, tool: str | None = None) -> None:
        self._attempt = attempt
        self._tool = tool
        self.has_started = False

    async def open(self) -> None:
        """Raises Withheld where a switch stops the effect."""
        _refuse(await _freshly_held(self._attempt, self._tool))

    def check(self) -> None:
        """Raises Withheld where a switch stops the effect, by what was seen last; else the effect has started."""
        switches = self._attempt.services.around.switches
        if switches is not None:
            _refuse(switches.held(self._attempt.target, self._tool))
        self.has_started = True


def _refuse(switch: Switch | None) -> None:
    if switch is not None:
        raise Withheld(f"held by {switch.told()}")


class SwitchWatch:
    """Keeps a worker's switches fresh, gives back what is to be aborted, and acknowledges each epoch."""

    def __init__(self, db: Database, worker_id: str, switches: Switches, emitter: Emitter) -> None:
        self._db = db
        self._worker_id = worker_id
        self._switches = switches
        self._emitter = emitter
        self._hinted = asyncio.Event()
        self._acknowledged: int | None = None

    def hint(self) -> None:
        """There may be something new."""
        self._hinted.set()

    async def run(self, on_change: Callable[[], None]) -> None:
        """Until it is cancelled. `on_change` is called when a switch was tripped or reset."""
        self._switches.on_change = on_change
        unlisten = self._db.listen(self._hear)
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._hinted.wait()
                self._hinted.clear()
        finally:
            unlisten()
            self._switches.on_change = None

    def _hear(self, topic: str) -> None:
        """On any thread."""
        if topic == WAKE_SWITCHES:
            with suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self.hint)

    async def _look(self) -> None:
        """The pump tells where the database is away; until it is back, no effect starts."""
        try:
            await self._switches.look()
            await self._acknowledge()
        except StoreError:
            return

    async def _acknowledge(self) -> None:
        epoch = self._switches.epoch
        if epoch is None or epoch == self._acknowledged:
            return
        if epoch or self._acknowledged is not None:
            await self._db.transaction(lambda tx: workers.acknowledge_switches(tx, self._worker_id, epoch))
            told = ", ".join(f"{switch.scope} ({switch.mode})" for switch in self._switches.tripped.values())
            self._emitter.emit(SwitchesSeen(self._worker_id, epoch, told or "none"))
        self._acknowledged = epoch


def give_back(attempt: Attempt, switches: Switches) -> None:
    """Stops an attempt at once where a switch aborts it."""
    switch = aborting(switches.tripped, attempt.target)
    if switch is not None:
        attempt.stop("released", f"given back for {switch.told()}")
