"""Circuit breakers: one row per dependency, shared by all workers; each process looks at them a few times a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TypeVar

from pilothouse.control.glances import Glance
from pilothouse.control.instants import now
from pilothouse.domain.breakers import Breaker, BreakerRule, BreakerState, admit, record
from pilothouse.store.database import Database, Row, Transaction, Work

T = TypeVar("T")


class Breakers:
    """The breakers as one process sees them. A call asks `wait_us` before, and tells `succeeded` or `failed` after."""

    def __init__(self, db: Database, rule: BreakerRule | None = None) -> None:
        self._db = db
        self._rule = rule or BreakerRule()
        self._seen: dict[str, Breaker] = {}
        self._glance = Glance(db, "list_breakers")
        self._successes = Counter[str]()

    async def wait_us(self, name: str) -> int:
        """How long a call has to wait, in microseconds; 0 where it may go out now.

        Of a half-open breaker it takes one of the probes, which no other worker can take then.
        """
        await self._look()
        seen = self._seen.get(name)
        if seen is None or seen.state == BreakerState.CLOSED:
            return 0
        return await self._change(lambda tx: _admit(tx, name, self._rule))

    async def succeeded(self, name: str) -> None:
        """Counts a success: at once where it matters, else with the next failure."""
        seen = self._seen.get(name)
        self._successes[name] += 1
        if seen is not None and seen.state != BreakerState.CLOSED:
            await self._record(name, failures=0, reason="")

    async def failed(self, name: str, reason: str) -> Breaker:
        """Counts a failure; the breaker after it."""
        return await self._record(name, failures=1, reason=reason)

    async def _record(self, name: str, *, failures: int, reason: str) -> Breaker:
        successes = self._successes.pop(name, 0)
        breaker = await self._change(
            lambda tx: _record(tx, name, self._rule, successes=successes, failures=failures, reason=reason)
        )
        self._seen[name] = breaker
        return breaker

    async def _change(self, work: Work[T]) -> T:
        answer = await self._db.transaction(work)
        self._glance.forget()
        return answer

    async def _look(self) -> None:
        rows = await self._glance.look()
        if rows is not None:
            self._seen = {row["name"]: _breaker(row) for row in rows}


def _admit(tx: Transaction, name: str, rule: BreakerRule) -> int:
    found = tx.fetch_one("breaker_by_name", name=name)
    if found is None:
        return 0
    before = _breaker(found)
    after, wait_us = admit(before, now(tx), rule)
    if after != before:
        _write(tx, after)
    return wait_us


def _record(tx: Transaction, name: str, rule: BreakerRule, *, successes: int, failures: int, reason: str) -> Breaker:
    tx.execute("add_breaker", name=name)
    found = tx.fetch_one("breaker_by_name", name=name)
    assert found is not None
    after = record(_breaker(found), now(tx), rule, successes=successes, failures=failures, reason=reason)
    _write(tx, after)
    return after


def _write(tx: Transaction, breaker: Breaker) -> None:
    tx.execute("set_breaker", **asdict(breaker))


def _breaker(row: Row) -> Breaker:
    facts = {name: value for name, value in row.items() if name != "now"}
    return Breaker(**{**facts, "state": BreakerState(row["state"])})


async def list_breakers(db: Database) -> list[Row]:
    """Every breaker that has ever counted a failure, by name."""
    return await db.read(list_in)


def uses_in(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Which agent has called what, from counters: the name of the breaker before it, and the agent."""
    for row in rows:
        if row["name"] in ("model_calls", "tool_calls"):
            kind, behind = row["name"].removesuffix("_calls"), row["label"].rpartition("/")[0]
            yield f"{kind}:{behind}", row["agent"]


def list_in(tx: Transaction) -> list[Row]:
    """The same within a transaction."""
    return tx.fetch_all("list_breakers")


def public(row: Row) -> Row:
    """A breaker as people see it."""
    is_open = row["state"] == BreakerState.OPEN
    return {
        "name": row["name"],
        "state": row["state"],
        "failures": row["failures"],
        "opens": row["opens"],
        "open_seconds": max(0.0, (row["open_until"] - row["now"]) / 1_000_000) if is_open else 0.0,
        "changed_at": row["changed_at"],
        "reason": row["reason"],
    }
