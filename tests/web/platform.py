"""A database with one agent and one worker, for tests of the HTTP side: what a worker would do, done by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pilothouse.clock import new_id
from pilothouse.control import attempts, workers
from pilothouse.control.agents import AgentCard
from pilothouse.control.attempts import ClaimedRun, LogLine, Settlement
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.lanes import Slots
from pilothouse.domain.retries import Backoff
from pilothouse.domain.runs import Ending, Limits, Spent, next_state
from pilothouse.payloads import encode
from pilothouse.store.database import Database, Transaction
from tests.control.steps import version_of

LEASE_US = 60_000_000
GREETING = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "times": {"type": "integer"}},
    "required": ["name"],
}


def agent_card(name: str = "hello", **changes: Any) -> AgentCard:
    fields: dict[str, Any] = {
        "name": name,
        "app": "greetings",
        "description": "Says hello.",
        "lane": "normal",
        "priority": 5,
        "max_attempts": 1,
        "max_losses": 3,
        "timeout_us": 300_000_000,
        "run_timeout_us": None,
        "input_schema": json.dumps(GREETING),
        "output_schema": "{}",
        "state_version": 1,
        "fingerprint": "f",
    }
    return AgentCard(**fields | changes)


@dataclass(frozen=True)
class FakeWorker:
    """Registers agents, claims runs and settles them, as the engine's worker does."""

    db: Database
    id: str = field(default_factory=new_id)

    async def start(self, *cards: AgentCard) -> None:
        card = WorkerCard(
            self.id, "host", 4711, "greetings", "0.1.0", [version_of(each.name) for each in cards], {"normal": 8}
        )
        await self.db.transaction(lambda tx: workers.register(tx, card, cards, lease_us=LEASE_US))

    async def claim(self, *agents: str) -> list[ClaimedRun]:
        demand, known = Slots().free({}), [version_of(name) for name in agents or ("hello",)]
        return await self.db.transaction(lambda tx: attempts.claim_runs(tx, self.id, demand, known))

    async def claim_one(self) -> ClaimedRun:
        (claimed,) = await self.claim()
        return claimed

    async def settle(
        self, run: ClaimedRun, ending: Ending = "succeeded", *, output: str | None = None, error: str | None = None
    ) -> None:
        limits = Limits(run.max_attempts, run.max_losses, Backoff())
        following = next_state(ending, Spent(run.failures, run.losses), limits, delay_seconds=None, jitter=0.0)
        settlement = Settlement(run.run_id, run.attempt, run.parent_id, ending, following, output=output, error=error)
        await self.db.transaction(lambda tx: attempts.settle_attempts(tx, [settlement], principal=f"worker:{self.id}"))
        self.db.notify("runs")

    async def fail(self, run: ClaimedRun, error_type: str = "ValueError") -> None:
        await self.settle(run, "fatal", error=encode({"type": error_type, "message": "it broke"}))

    async def log(self, run: ClaimedRun, message: str) -> None:
        line = LogLine(run.run_id, run.attempt, self.db.clock.now_us(), "info", message, '{"n":1}')
        await self.db.transaction(lambda tx: attempts.write_logs(tx, [line]))
        self.db.notify("runs")

    async def progress(self, run: ClaimedRun, done: int, total: int | None) -> None:
        def work(tx: Transaction) -> None:
            attempts.write_progress(tx, {run.key: (done, total)})

        await self.db.transaction(work)
        self.db.notify("runs")
