"""Whatever the clock and the workers do, a lease has one holder, and only who holds it can write."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pilothouse.clock import FrozenClock
from pilothouse.control import attempts, leases, workers
from pilothouse.errors import LeaseLost
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import start_worker

SECOND_US = 1_000_000
LEASE_US = 10 * SECOND_US
HOLDERS = ("a", "b", "c")


class MovableClock(FrozenClock):
    """It can be set back as well."""

    def set_back(self, *, seconds: float) -> None:
        self._now_us -= round(seconds * SECOND_US)


class LeaseMachine(RuleBasedStateMachine):
    """The model: until when each live worker's lease and the chore's lasts, and who leads the chore."""

    @initialize()
    def open(self) -> None:
        self.clock = MovableClock(1_800_000_000 * SECOND_US)
        self.db: Database = self.open_empty()
        self.db.start()
        migrate(self.db)
        self.until: dict[str, int] = {}
        self.gone: set[str] = set()
        self.leader: tuple[str, int] | None = None

    def open_empty(self) -> Database:
        self.folder = tempfile.TemporaryDirectory()
        return open_database(f"sqlite:///{Path(self.folder.name) / 'model.db'}?synchronous=normal", clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.folder.cleanup()

    @property
    def now(self) -> int:
        return self.clock.now_us()

    @rule()
    def start(self) -> None:
        if len(self.until) < 4:
            self.until[start_worker(self.db, lease_us=LEASE_US)] = self.now + LEASE_US

    @rule(seconds=st.sampled_from([0.1, 2, 9, 11, 40]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    @rule(seconds=st.sampled_from([0.5, 5, 3600]))
    def set_clock_back(self, seconds: float) -> None:
        self.clock.set_back(seconds=seconds)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if not (self.until or self.gone):
            return
        id = data.draw(st.sampled_from(sorted({*self.until, *self.gone})))

        state = self.db.transaction_blocking(lambda tx: workers.renew(tx, id, lease_us=LEASE_US))

        assert (state is not None) == (id in self.until)
        if state is not None:
            self.until[id] = self.now + LEASE_US

    @rule()
    def reap(self) -> None:
        """A lease that was renewed in what is now the future lasts as long from now on."""
        slack = LEASE_US + SECOND_US
        self.until = {
            id: min(until, self.now + LEASE_US) if until > self.now + slack else until
            for id, until in self.until.items()
        }
        expired = {id for id, until in self.until.items() if until < self.now}

        self.db.transaction_blocking(lambda tx: attempts.reap_workers(tx, principal="test"))

        self.until = {id: until for id, until in self.until.items() if id not in expired}
        self.gone |= expired

    @rule(holder=st.sampled_from(HOLDERS))
    def lead(self, holder: str) -> None:
        is_leading = asyncio.run(leases.hold(self.db, "chore", holder, lease_us=LEASE_US))

        name, until = self.leader or (holder, 0)
        assert is_leading == (name == holder or until < self.now or until > self.now + LEASE_US + SECOND_US)
        if is_leading:
            self.leader = (holder, self.now + LEASE_US)

    @rule(holder=st.sampled_from(HOLDERS))
    def resign(self, holder: str) -> None:
        asyncio.run(leases.release(self.db, "chore", holder))
        if self.leader is not None and self.leader[0] == holder:
            self.leader = None

    @invariant()
    def only_who_holds_a_lease_can_write(self) -> None:
        for id in getattr(self, "gone", ()):
            with pytest.raises(LeaseLost):
                self.fence(id)
        for id in getattr(self, "until", ()):
            self.fence(id)

    def fence(self, id: str) -> None:
        self.db.transaction_blocking(lambda tx: attempts.fence_worker(tx, id))


def test_a_lease_has_one_holder_whatever_the_clock_does() -> None:
    run_state_machine_as_test(LeaseMachine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_on_postgres_too(postgres_url: str) -> None:
    """One database for all examples: the workers and leases of those before are taken away."""
    clock = MovableClock(1_800_000_000 * SECOND_US)

    class PostgresLeaseMachine(LeaseMachine):
        def open_empty(self) -> Database:
            self.clock = clock
            return db

        def teardown(self) -> None:
            for table in ("workers", "leases"):
                db.administer(lambda tx, table=table: tx.execute(f"DELETE FROM {table}"))  # type: ignore[misc]

    db = open_database(postgres_url, clock=clock)
    try:
        run_state_machine_as_test(
            PostgresLeaseMachine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None)
        )
    finally:
        db.close()
