"""Whatever is done to runs in whatever order, they are where a simple model says, and every invariant holds."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilothouse.clock import FrozenClock
from pilothouse.control import cancels, checks, dead, signals
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.waits import Wait
from pilothouse.domain.runs import Ending
from pilothouse.errors import LeaseLost
from pilothouse.store.database import open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    card,
    checkpoint,
    claim,
    demand,
    ended,
    reap,
    register,
    settle,
    start_worker,
    state_of,
    submit,
    write,
)

ENDINGS: tuple[Ending, ...] = ("succeeded", "failed", "fatal", "cancelled", "snoozed", "released", "suspended")
AFTER: dict[Ending, str] = {
    "succeeded": "succeeded",
    "fatal": "failed",
    "cancelled": "cancelled",
    "snoozed": "queued",
    "released": "queued",
    "suspended": "waiting",
}
MAX_ATTEMPTS, MAX_LOSSES = 3, 2


class RunMachine(RuleBasedStateMachine):
    """The model: the state of each run, what it has spent, whether its cancel was asked for, whether it is woken."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FrozenClock(1_800_000_000_000_000)
        self.db = open_database(f"sqlite:///{Path(self.folder.name) / 'model.db'}?synchronous=normal", clock=self.clock)
        self.db.start()
        migrate(self.db)
        register(self.db, card("echo", max_attempts=MAX_ATTEMPTS, max_losses=MAX_LOSSES))
        self.worker = start_worker(self.db, lease_us=10**15)
        self.states: dict[str, str] = {}
        self.failures: dict[str, int] = {}
        self.losses: dict[str, int] = {}
        self.cancelling: set[str] = set()
        self.woken: set[str] = set()
        self.signalled: set[str] = set()
        self.held: dict[str, ClaimedRun] = {}
        self.late: list[ClaimedRun] = []
        self.steps = 0

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.folder.cleanup()

    @rule()
    def submit(self) -> None:
        run_id = submit(self.db)
        self.states[run_id], self.failures[run_id], self.losses[run_id] = "queued", 0, 0

    @rule(slots=st.integers(1, 4))
    def claim(self, slots: int) -> None:
        self.clock.advance(seconds=120)  # whatever backs off is due
        due = {
            id for id, state in self.states.items() if state == "queued" or (state == "waiting" and id in self.woken)
        }

        claimed = claim(self.db, self.worker, wanted=demand(normal=slots))

        assert {run.run_id for run in claimed} <= due
        assert len(claimed) == min(slots, len(due))
        for run in claimed:
            self.states[run.run_id] = "running"
            self.woken.discard(run.run_id)
            self.held[run.run_id] = run

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS))
    def settle(self, data: st.DataObject, ending: Ending) -> None:
        run = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        id = run.run_id

        assert settle(self.db, ended(run, ending, waits=(Wait("signal", "go", "g"),) if ending == "suspended" else ()))

        self.failures[id] += ending in ("failed", "fatal")
        after = AFTER.get(ending) or ("failed" if self.failures[id] >= MAX_ATTEMPTS else "queued")
        if id in self.cancelling and after in ("queued", "waiting", "failed"):
            after = "cancelled"
        self.states[id] = after
        if after == "waiting" and id in self.signalled:
            self.woken.add(id)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def checkpoint(self, data: st.DataObject) -> None:
        run = self.held[data.draw(st.sampled_from(sorted(self.held)))]

        self.steps += 1
        assert write(self.db, checkpoint(run, f"step-{self.steps}")) == [None]

    @rule()
    def worker_vanishes(self) -> None:
        lost = reap(self.db, self.worker)

        assert {run_id for run_id, _ in lost} == set(self.held)
        for id in self.held:
            self.losses[id] += 1
            after = "failed" if self.losses[id] >= MAX_LOSSES else "queued"
            self.states[id] = "cancelled" if id in self.cancelling else after
        self.late += self.held.values()
        self.held = {}
        self.worker = start_worker(self.db, lease_us=10**15)

    @precondition(lambda self: self.late)
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS))
    def late_worker_changes_nothing(self, data: st.DataObject, ending: Ending) -> None:
        run = data.draw(st.sampled_from(self.late))

        assert settle(self.db, ended(run, ending)) == set()
        assert isinstance(write(self.db, checkpoint(run, "late"))[0], LeaseLost)

    @precondition(lambda self: any(state in ("queued", "waiting", "running") for state in self.states.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        open_ids = sorted(id for id, state in self.states.items() if state in ("queued", "waiting", "running"))
        id = data.draw(st.sampled_from(open_ids))

        asyncio.run(cancels.cancel_run(self.db, id, principal="test"))

        self.woken.discard(id)
        if self.states[id] == "running":
            self.cancelling.add(id)
        else:
            self.states[id] = "cancelled"

    @precondition(lambda self: any(state in ("queued", "waiting", "running") for state in self.states.values()))
    @rule(data=st.data())
    def signal(self, data: st.DataObject) -> None:
        open_ids = sorted(id for id, state in self.states.items() if state in ("queued", "waiting", "running"))
        id = data.draw(st.sampled_from(open_ids))

        is_first = asyncio.run(signals.send_signal(self.db, id, "go", None, principal="test"))

        assert is_first == (id not in self.signalled)
        self.signalled.add(id)
        if self.states[id] == "waiting":
            self.woken.add(id)

    @precondition(lambda self: "failed" in self.states.values())
    @rule(data=st.data(), start=st.booleans())
    def redrive(self, data: st.DataObject, *, start: bool) -> None:
        id = data.draw(st.sampled_from(sorted(id for id, state in self.states.items() if state == "failed")))

        asyncio.run(dead.redrive_run(self.db, id, principal="test", start_from="start" if start else "failure"))

        self.states[id], self.failures[id], self.losses[id] = "queued", 0, 0
        self.cancelling.discard(id)

    @invariant()
    def runs_are_where_the_model_says(self) -> None:
        for id, state in getattr(self, "states", {}).items():
            assert state_of(self.db, id) == state

    @invariant()
    def the_run_log_is_whole(self) -> None:
        if hasattr(self, "db"):
            broken = [verdict for verdict in asyncio.run(checks.check(self.db, grace_us=10**15)) if not verdict.holds]
            assert not broken


RunMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestRunMachine = RunMachine.TestCase
