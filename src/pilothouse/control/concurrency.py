"""Concurrency limits: how many runs of an agent, and of one key of it, may run at once, whoever claims them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pilothouse import payloads
from pilothouse.store.database import Row, Transaction


class AgentVersion(NamedTuple):
    """An agent as a worker can run it: the state versions that it can continue, the fingerprint of its code, and how
    many runs of it, and of one of its keys, may run at once (None: no limit).
    """

    name: str
    oldest: int
    newest: int
    fingerprint: str
    max_running: int | None = None
    max_running_per_key: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.max_running is not None or self.max_running_per_key is not None


class Headroom:
    """How many more runs of limited agents this transaction may start.

    It holds the agents' rows, so that no other claim of the same agents is under way: what it counts cannot grow.
    """

    def __init__(self, tx: Transaction, agents: Sequence[AgentVersion]) -> None:
        self._agents = {agent.name: agent for agent in agents if agent.is_limited}
        names = [{"name": name} for name in sorted(self._agents)]
        tx.fetch_many("lock_agents", names)
        self._running = Counter({row["agent"]: int(row["running"]) for row in tx.fetch_many("running_by_agent", names)})
        keyed = [{"name": agent.name} for agent in agents if agent.max_running_per_key is not None]
        rows = tx.fetch_many("running_by_key", keyed)
        self._by_key = Counter({(row["agent"], row["concurrency_key"]): int(row["running"]) for row in rows})

    def open_agents(self, agents: Sequence[AgentVersion]) -> list[AgentVersion]:
        """Those of which another run may start."""
        return [agent for agent in agents if self._has_room(agent)]

    def full_keys(self) -> str:
        """The keys of which no other run may start, as the claim takes them."""
        full = [key for key in self._by_key if not self._has_room_for_key(*key)]
        return payloads.encode([{"agent": agent, "key": key} for agent, key in full])

    def admit(self, run: Row) -> bool:
        """Whether one more run may start; it is counted if so."""
        name, key = run["agent"], run["concurrency_key"]
        agent = self._agents.get(name)
        if agent is None:
            return True
        if not (self._has_room(agent) and self._has_room_for_key(name, key)):
            return False
        self._running[name] += 1
        self._by_key[name, key] += key is not None
        return True

    def _has_room(self, agent: AgentVersion) -> bool:
        return agent.max_running is None or self._running[agent.name] < agent.max_running

    def _has_room_for_key(self, name: str, key: str | None) -> bool:
        limit = self._agents[name].max_running_per_key
        return key is None or limit is None or self._by_key[name, key] < limit
