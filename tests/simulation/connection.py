"""One simulated process's way to the database: calls travel, get lost, come back late or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from pilothouse.errors import OutcomeUnknown, StoreUnavailable
from pilothouse.store.database import PoolUse, T, Work
from tests.simulation.faults import Fate, Faults
from tests.simulation.store import Store, WorldClock


class Process(Protocol):
    """Who makes the calls."""

    name: str
    is_dead: bool

    def crash(self) -> None: ...


class Network:
    """What all processes of a world share: the store, the faults, the hints. `is_down` while the database is away;
    `unanswered` submits are tried again until their news comes.
    """

    def __init__(self, store: Store, clock: WorldClock, faults: Faults, chance: Random) -> None:
        self.store, self.clock, self.faults, self.chance = store, clock, faults, chance
        self.is_down = False
        self.unanswered = 0
        self._listeners: list[tuple[Process, Callable[[str], None]]] = []

    def listen(self, process: Process, callback: Callable[[str], None]) -> Callable[[], None]:
        entry = (process, callback)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    def tell_own(self, sender: Process, topic: str) -> None:
        for process, callback in tuple(self._listeners):
            if process is sender:
                callback(topic)

    def tell_others(self, sender: Process) -> None:
        """They hear that something has changed, a little later or never."""
        loop = asyncio.get_running_loop()
        for process, callback in tuple(self._listeners):
            if process is not sender and self.chance.random() < self.faults.hint_odds:
                loop.call_later(self.chance.uniform(0.0005, 0.01), callback, "*")


class SimulatedDatabase:
    """The Database as one process sees it."""

    url = "sqlite:///simulated"

    def __init__(self, network: Network, process: Process, *, dialect: str) -> None:
        self.dialect = dialect
        self.clock = network.clock
        self._network = network
        self._process = process

    def start(self) -> None:
        """It is open from the beginning."""

    def close(self) -> None:
        """It stays open until the end of the world."""

    async def transaction(self, work: Work[T], *, is_patient: bool = False) -> T:
        del is_patient
        return await self._call(work, self._network.store.commit)

    async def read(self, work: Work[T]) -> T:
        return await self._call(work, self._network.store.read)

    def transaction_blocking(self, work: Work[T]) -> T:
        raise AssertionError("there are no threads in a simulation")

    read_blocking = administer = examine = transaction_blocking

    def notify(self, topic: str) -> None:
        if not self._process.is_dead:
            self._network.tell_own(self._process, topic)

    def listen(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._network.listen(self._process, callback)

    def pool_use(self) -> PoolUse:
        return PoolUse(1, 0, 0)

    def check(self) -> None:
        """It is there."""

    async def _call(self, work: Work[T], run: Callable[[Work[T]], T]) -> T:
        if self._process.is_dead:
            raise asyncio.CancelledError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        fate = self._network.faults.draw()
        loop.call_later(fate.there, self._arrive, future, work, run, fate)
        return await future

    def _arrive(self, future: asyncio.Future[T], work: Work[T], run: Callable[[Work[T]], T], fate: Fate) -> None:
        """What was sent may take place even if its sender is dead or has given up."""
        if self._network.is_down or fate.mishap == "unreachable":
            self._answer(future, StoreUnavailable("simulated: the database is away"))
            return
        if fate.mishap == "undone":
            self._answer(future, OutcomeUnknown("simulated: the connection was cut before the commit"))
            return
        if fate.mishap == "crash_before":
            self._process.crash()
        if (self._process.is_dead or future.done()) and self._network.chance.random() < 0.5:
            return
        if fate.mishap == "rerun":
            self._rehearse(work)
        answer = _outcome(work, run)
        if fate.mishap == "crash_after":
            self._process.crash()
        if fate.mishap == "unheard":
            answer = OutcomeUnknown("simulated: the connection was cut after the commit")
        asyncio.get_running_loop().call_later(fate.back, self._answer, future, answer)
        if run == self._network.store.commit:
            self._network.tell_others(self._process)

    def _rehearse(self, work: Work[Any]) -> None:
        try:
            self._network.store.rehearse(work)
        except Exception:  # noqa: BLE001 - the work fails again when it counts
            return

    def _answer(self, future: asyncio.Future[T], answer: T | BaseException) -> None:
        if self._process.is_dead or future.done():
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _outcome(work: Work[T], run: Callable[[Work[T]], T]) -> T | BaseException:
    try:
        return run(work)
    except Exception as error:  # noqa: BLE001 - whatever the work raises goes back to its caller
        return error
