"""Whatever is tripped, reset, submitted, claimed and suspended, in any order: nothing held runs, nothing sleeps on."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pilothouse.control import attempts, checks, switches
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.concurrency import AgentVersion
from pilothouse.control.runs import Submitted
from pilothouse.control.switches import TripOrder
from pilothouse.control.waits import Wait
from pilothouse.domain.switches import SwitchMode
from pilothouse.errors import NotFound, SwitchedOff
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import card, demand, ended, register, request, run_of, settle, start_worker, submit_all

AGENTS = {"echo": "f1", "other": "f2"}
TENANTS, LANES = ("acme", "beta"), ("normal", "low")
SCOPES = ("global", "tenant:acme", "agent:echo", "version:f2", "lane:low", "tool:send")


@dataclass
class Model:
    """What a run must be. `sleeps_on`: the scope of the switch that it waits for."""

    agent: str
    tenant: str
    lane: str
    state: Literal["queued", "running", "waiting", "ended"] = "queued"
    sleeps_on: str | None = None
    claim: ClaimedRun | None = None

    @property
    def scopes(self) -> set[str]:
        return {
            "global",
            f"tenant:{self.tenant}",
            f"agent:{self.agent}",
            f"version:{AGENTS[self.agent]}",
            f"lane:{self.lane}",
        }

    @property
    def is_due(self) -> bool:
        return self.state == "queued" or (self.state == "waiting" and self.sleeps_on is None)


class SwitchMachine(RuleBasedStateMachine):
    """The model: which switches are tripped in which mode, and what each run is."""

    @initialize()
    def open(self) -> None:
        self.db: Database = self.open_empty()
        self.db.start()
        migrate(self.db)
        register(self.db, *(card(name, fingerprint=fingerprint) for name, fingerprint in AGENTS.items()))
        self.worker = start_worker(self.db)
        self.tripped: dict[str, str] = {}
        self.runs: dict[str, Model] = {}
        self.epoch = 0

    def open_empty(self) -> Database:
        self.folder = tempfile.TemporaryDirectory()
        return open_database(f"sqlite:///{Path(self.folder.name) / 'model.db'}?synchronous=normal")

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.check_whole()
            self.db.close()
            self.folder.cleanup()

    def check_whole(self) -> None:
        assert [v for v in asyncio.run(checks.check(self.db, grace_us=60_000_000)) if not v.holds] == []

    @rule(scope=st.sampled_from(SCOPES), mode=st.sampled_from(["hold", "drain", "abort"]))
    def trip(self, scope: str, mode: str) -> None:
        row = asyncio.run(switches.trip_switch(self.db, TripOrder(scope, SwitchMode(mode)), principal="test"))

        assert row["epoch"] > self.epoch
        self.epoch = row["epoch"]
        self.tripped[scope] = mode

    @rule(scope=st.sampled_from(SCOPES))
    def reset(self, scope: str) -> None:
        if scope not in self.tripped:
            with pytest.raises(NotFound):
                asyncio.run(switches.reset_switch(self.db, scope, principal="test"))
            return
        sleeping = [run for run in self.runs.values() if run.sleeps_on == scope]

        row = asyncio.run(switches.reset_switch(self.db, scope, principal="test"))

        assert row["released"] == len(sleeping)
        del self.tripped[scope]
        for run in sleeping:
            run.sleeps_on = None

    @rule(agent=st.sampled_from(sorted(AGENTS)), tenant=st.sampled_from(TENANTS), lane=st.sampled_from(LANES))
    def submit(self, agent: str, tenant: str, lane: str) -> None:
        run = Model(agent, tenant, lane)

        (answer,) = submit_all(self.db, request(agent, tenant=tenant, lane=lane))

        assert isinstance(answer, SwitchedOff) == any(self.tripped.get(scope) == "abort" for scope in run.scopes)
        if isinstance(answer, Submitted):
            self.runs[answer.id] = run

    @rule()
    def claim(self) -> None:
        known = [AgentVersion(name, 1, 1, fingerprint) for name, fingerprint in AGENTS.items()]

        claimed = self.db.transaction_blocking(lambda tx: attempts.claim_runs(tx, self.worker, demand(), known))

        due = {id for id, run in self.runs.items() if run.is_due and not run.scopes & self.tripped.keys()}
        assert {each.run_id for each in claimed} == due
        for each in claimed:
            run = self.runs[each.run_id]
            run.state, run.claim = "running", each

    @rule(data=st.data(), scope=st.sampled_from(SCOPES))
    def suspend(self, data: st.DataObject, scope: str) -> None:
        """On a switch that may have been reset since the run has met it."""
        run = self.draw_running(data)
        if run is None or run.claim is None:
            return
        settle(self.db, ended(run.claim, "suspended", waits=(Wait("switch", scope, f"switch {scope}"),)))
        run.state, run.claim = "waiting", None
        run.sleeps_on = scope if scope in self.tripped else None

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """What an abort does to it."""
        run = self.draw_running(data)
        if run is not None and run.claim is not None:
            settle(self.db, ended(run.claim, "released"))
            run.state, run.claim = "queued", None

    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        run = self.draw_running(data)
        if run is not None and run.claim is not None:
            settle(self.db, ended(run.claim))
            run.state, run.claim = "ended", None

    def draw_running(self, data: st.DataObject) -> Model | None:
        running = sorted(id for id, run in self.runs.items() if run.state == "running")
        return self.runs[data.draw(st.sampled_from(running))] if running else None

    @invariant()
    def every_run_is_what_it_must_be(self) -> None:
        for id, run in getattr(self, "runs", {}).items():
            row = run_of(self.db, id)
            assert row["state"] == ("succeeded" if run.state == "ended" else run.state)
            assert (row["available_at"] is not None) == run.is_due

    @invariant()
    def the_tripped_switches_are_listed(self) -> None:
        if hasattr(self, "tripped"):
            listed = asyncio.run(switches.list_switches(self.db))
            assert {row["scope"]: row["mode"] for row in listed} == self.tripped


def test_nothing_held_runs_and_nothing_sleeps_on() -> None:
    run_state_machine_as_test(SwitchMachine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))


def test_on_postgres_too(postgres_url: str) -> None:
    """One database for all examples: what those before have left is taken away."""

    class PostgresSwitchMachine(SwitchMachine):
        def open_empty(self) -> Database:
            return db

        def teardown(self) -> None:
            self.check_whole()
            db.administer(
                lambda tx: tx.execute(
                    "TRUNCATE switches, switch_epochs, runs, attempts, waits, counters, audit, workers, agents"
                )
            )

    db = open_database(postgres_url)
    try:
        run_state_machine_as_test(
            PostgresSwitchMachine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None)
        )
    finally:
        db.close()
