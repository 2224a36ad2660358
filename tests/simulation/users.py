"""Those outside: they submit runs, cancel, signal and redrive, and try again until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from pilothouse.control import cancels, dead, signals
from pilothouse.control.runs import Request, Submitter
from pilothouse.errors import NotFound, Refused, StoreUnavailable
from tests.simulation.agents import make_input
from tests.simulation.connection import Network, SimulatedDatabase

T = TypeVar("T")

AGENTS = ("chain", "fan", "narrow", "narrow", "nap", "ask", "parent", "moody", "sluggish")
AGAIN_SECONDS = 0.7


@dataclass(slots=True)
class Users:
    """Talk to the database through a process that never crashes. `accepted` maps each key to the run it made."""

    network: Network
    chance: Random
    name: str = "users"
    is_dead: bool = False
    accepted: dict[str, str] = field(default_factory=dict)
    agent_of: dict[str, str] = field(default_factory=dict)

    def crash(self) -> None:
        """A fault that was meant for a worker's process; nothing is lost here."""

    async def visit(self, *, runs: int, seconds: float) -> None:
        """Submits `runs` runs over so many seconds, and does something to some of them."""
        db = SimulatedDatabase(self.network, self, dialect="sqlite")
        submitter = Submitter(db)
        async with asyncio.TaskGroup() as group:
            for number in range(runs):
                group.create_task(self._use(db, submitter, f"key-{number}", self.chance.uniform(0, seconds)))
        await submitter.close()

    async def _use(self, db: SimulatedDatabase, submitter: Submitter, key: str, delay: float) -> None:
        await asyncio.sleep(delay)
        agent = self.chance.choice(AGENTS)
        request = self._request(agent, key)
        self.network.unanswered += 1
        submitted = await _insist(lambda: submitter.submit(request))
        self.network.unanswered -= 1
        self.accepted[key] = submitted.id
        self.agent_of[submitted.id] = agent
        for act in self._acts(db, agent, submitted.id):
            await asyncio.sleep(self.chance.uniform(0, 15))
            try:
                await _insist(act)
            except Refused:
                continue

    def _request(self, agent: str, key: str) -> Request:
        chance = self.chance
        lane = chance.choice([None, None, "critical", "low"])
        available_at = None
        if chance.random() < 0.2:
            available_at = self.network.clock.now_us() + int(chance.uniform(-5, 20) * 1_000_000)
        return Request(
            agent,
            make_input(agent, chance),
            principal="user",
            lane=lane,
            priority=chance.choice([None, 0, 5, 9]),
            available_at=available_at,
            idempotency_key=key,
            tenant=chance.choice(["default", "acme"]),
            concurrency_key=chance.choice([None, "a", "b"]),
        )

    def _acts(self, db: SimulatedDatabase, agent: str, run_id: str) -> list[Callable[[], Awaitable[object]]]:
        chance = self.chance
        acts: list[Callable[[], Awaitable[object]]] = []
        if agent == "ask" and chance.random() < 0.7:
            acts.append(lambda: signals.send_signal(db, run_id, "answer", 42, principal="user"))
        if chance.random() < 0.15:
            acts.append(lambda: cancels.cancel_run(db, run_id, principal="user"))
        if chance.random() < 0.3:
            start_from: dead.RedriveFrom = chance.choice(["failure", "start"])
            acts.append(lambda: dead.redrive_run(db, run_id, principal="user", start_from=start_from))
        return acts


async def _insist(act: Callable[[], Awaitable[T]]) -> T:
    """Until it is answered; an agent that no worker has registered yet is waited for, too."""
    while True:
        try:
            return await act()
        except StoreUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)
        except NotFound as error:
            if "agent" not in str(error):
                raise
            await asyncio.sleep(AGAIN_SECONDS)
