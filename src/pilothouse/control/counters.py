"""Counters: how many runs are in each state, how attempts ended, how long runs took. Never counted over history."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter

from pilothouse import payloads
from pilothouse.domain.failures import category_of
from pilothouse.domain.runs import TERMINAL, RunState
from pilothouse.store.database import Row, Transaction

SHARDS = 16
"""Rows per counter; each transaction takes one at random, so that few wait for the same. SQLite needs only one."""

DURATION_BUCKETS_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Bounds may be added: what was counted before stays under the bound that it was known to keep. None may be moved."""
INFINITE = "+Inf"
BUCKET_NAMES = (*map(str, DURATION_BUCKETS_SECONDS), INFINITE)

NOWHERE = ""
"""The state of a run that is not in the run log yet, or not any more."""


class Tally:
    """The changes of one transaction, summed, and written with one statement at its end."""

    def __init__(self) -> None:
        self._moves: Counter[tuple[str, str, str, str, str]] = Counter()
        self._changes: Counter[tuple[str, str, str, str]] = Counter()
        self._calls: Counter[tuple[str, str, str]] = Counter()

    def enter(self, run: Row, state: str) -> None:
        self._moves[run["agent"], run["lane"], run["tenant"], NOWHERE, state] += 1

    def move(self, run: Row, before: str, after: str) -> None:
        self._moves[run["agent"], run["lane"], run["tenant"], before, after] += 1
        if after in TERMINAL:
            self._changes["runs_ended", run["agent"], run["lane"], after] += 1

    def prune(self, run: Row) -> None:
        """A run that has ended leaves the run log; what was counted over time must not turn back."""
        self._moves[run["agent"], run["lane"], run["tenant"], run["state"], NOWHERE] += 1
        self._changes["pruned", run["agent"], run["lane"], run["state"]] += 1

    def prune_attempts(self, agent: str, lane: str, outcome: str, count: int) -> None:
        self._changes["pruned_attempts", agent, lane, outcome] += count

    def attempt(self, agent: str, lane: str, outcome: str) -> None:
        self._changes["attempts", agent, lane, outcome] += 1

    def end(self, run: Row, ending: str, error: str | None, *, has_asked: bool) -> None:
        """A run that ended: how long it took, why it failed, and whether it had asked people for something."""
        agent, lane, state = run["agent"], run["lane"], run["state"]
        if has_asked:
            self._changes["runs_asked", agent, lane, ""] += 1
        if state == RunState.FAILED:
            told = payloads.decode(error) if error else {}
            self._changes["runs_failed", agent, lane, category_of(ending, told.get("type"))] += 1
        if state != RunState.CANCELLED:  # a cancelled one says nothing of how long its agent takes
            self._time(agent, lane, run["finished_at"] - run["started_at"])

    def _time(self, agent: str, lane: str, duration_us: int) -> None:
        """From the first claim to the end."""
        bucket = bisect_left(DURATION_BUCKETS_SECONDS, duration_us / 1_000_000)
        self._changes["run_seconds", agent, lane, BUCKET_NAMES[bucket]] += 1
        self._changes["run_us", agent, lane, ""] += duration_us

    def call(self, run_id: str, name: str, label: str, value: int = 1) -> None:
        """What a call of a run adds to a counter of the run's agent."""
        self._calls[run_id, name, label] += value

    def write(self, tx: Transaction) -> None:
        """Written last and in one order, so that two transactions never wait for each other's rows in a circle."""
        for (agent, lane, tenant, before, after), count in self._moves.items():
            self._change(agent, lane, tenant, before, -count)
            self._change(agent, lane, tenant, after, count)
        self._moves.clear()
        shard = random.randrange(SHARDS) if tx.dialect == "postgres" else 0
        rows = [
            {"name": name, "agent": agent, "lane": lane, "label": label, "shard": shard, "value": value}
            for (name, agent, lane, label), value in sorted(self._changes.items())
            if value
        ]
        if rows:
            tx.send_many("add_counters", rows)
        calls = [
            {"run_id": run_id, "name": name, "label": label, "shard": shard, "value": value}
            for (run_id, name, label), value in self._calls.items()
            if value
        ]
        if calls:
            tx.send_many("add_call_counters", calls)

    def _change(self, agent: str, lane: str, tenant: str, state: str, change: int) -> None:
        if state == NOWHERE:
            return
        self._changes["runs", agent, lane, state] += change
        if state == RunState.QUEUED:
            self._changes["queued", "", "", tenant] += change
        if state == RunState.RUNNING:
            self._changes["running", "", lane, tenant] += change


def tally(tx: Transaction) -> Tally:
    """What this transaction changes in the counters."""
    return tx.closing(Tally)


def read(tx: Transaction, name: str | None = None) -> list[Row]:
    return tx.fetch_all("read_counters", name=name)
