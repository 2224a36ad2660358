"""`db check` finds each way in which the run log can be wrong, and names that one."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.control import attempts, checks, leases, workers
from pilothouse.control.waits import Wait
from pilothouse.store.database import Database
from tests.control.steps import an_ask, checkpoint, claim, ended, settle, start_worker, submit, write

CORRUPTIONS = {
    "no running run without a live lease": "UPDATE workers SET state = 'stopped'",
    "no running attempt beside its run's latest": "UPDATE runs SET state = 'queued' WHERE state = 'running'",
    "attempts are numbered without a gap": "UPDATE runs SET attempt = attempt + 1 WHERE state = 'succeeded'",
    "every attempt was claimed once and settled once": "DELETE FROM audit WHERE action = 'run.succeeded'",
    "no checkpoint by a foreign attempt": "UPDATE checkpoints SET attempt = 9",
    "a run has an end exactly when it has ended": "UPDATE runs SET finished_at = NULL WHERE state = 'succeeded'",
    "no waiting run whose wait is over": (
        "INSERT INTO signals SELECT id, 'go', '1', 'x', 0 FROM runs WHERE state = 'waiting'"
    ),
    "no waiting run that waits for nothing": "DELETE FROM waits",
    "run counters equal the rows they count": "UPDATE counters SET value = value + 1 WHERE name = 'runs'",
    "counters of tenants equal the rows they count": "UPDATE counters SET value = 9 WHERE name = 'queued'",
    "every large payload that is referred to is there": "UPDATE runs SET input = 'blob:0' WHERE state = 'succeeded'",
    "every call of a model or a tool is a step's": (
        "INSERT INTO tool_calls (run_id, key, attempt, tool, effect, called_by, arguments, outcome, cost_microusd, "
        "started_at, latency_us) SELECT id, 'none', 1, 't', 'read', 'code', '{}', 'succeeded', 0, 0, 0 FROM runs"
    ),
    "every balance is the sum of its ledger entries": (
        "INSERT INTO balances VALUES ('global', '2026-11', 1, 0, 0, 0, 0, 0)"
    ),
    "every reservation is booked once, and settled once": (
        "INSERT INTO reservations (id, state, run_id, key, attempt, tenant, agent, day, month, microusd, tokens, "
        "actions, created_at) SELECT id, 'held', id, 's', 1, 'default', 'echo', '', '', 1, 0, 0, 0 FROM runs"
    ),
    "nothing is left of an erased tenant": (
        "INSERT INTO erasures (id, tenant, state, requested_by, started_at, finished_at) "
        "VALUES ('e', 'default', 'done', 'x', 9000000000000000, 9000000000000000)"
    ),
    "no run that has ended still asks a person": (
        "UPDATE approvals SET run_id = (SELECT id FROM runs WHERE state = 'succeeded')"
    ),
    "every approved approval has the votes it needs": "UPDATE approvals SET state = 'approved'",
    "attempt counters equal the rows they count": "UPDATE counters SET value = value + 1 WHERE name = 'attempts'",
}


def broken(db: Database) -> set[str]:
    return {v.name for v in asyncio.run(checks.check(db, grace_us=60_000_000)) if not v.holds}


@pytest.fixture
def lived_in(db: Database, worker: str) -> Database:
    """One run running, one waiting, one succeeded."""
    for _ in range(3):
        submit(db)
    running, waiting, done = claim(db, worker)
    asks = checkpoint(running, "s")._replace(asks=(an_ask(),))
    assert write(db, asks, checkpoint(done, "s")) == [None, None]
    settle(db, ended(waiting, "suspended", waits=(Wait("signal", "go", "g"),)), ended(done))
    return db


def test_every_invariant_has_a_corruption_that_this_file_tries() -> None:
    assert {invariant.name for invariant in checks.INVARIANTS} == set(CORRUPTIONS)


@pytest.mark.corrupts
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_found_and_named(lived_in: Database, name: str) -> None:
    assert broken(lived_in) == set()

    lived_in.administer(lambda tx: tx.execute(CORRUPTIONS[name]))

    assert name in broken(lived_in)


async def test_a_lease_has_one_holder_until_it_runs_out(database: Database) -> None:
    first = await leases.hold(database, "chore", "a", lease_us=60_000_000)
    second = await leases.hold(database, "chore", "b", lease_us=60_000_000)
    again = await leases.hold(database, "chore", "a", lease_us=1)
    taken_over = await leases.hold(database, "chore", "b", lease_us=60_000_000)

    assert (first, second, again, taken_over) == (True, False, True, True)


async def test_a_lease_of_before_the_clock_was_set_back_does_not_last(database: Database) -> None:
    """Its holder may be gone, and nobody would do its work until the clock has caught up."""
    await leases.hold(database, "chore", "a", lease_us=60_000_000)
    gone = start_worker(database, lease_us=1_000_000)
    database.administer(lambda tx: tx.execute("UPDATE leases SET lease_until = lease_until + 3600000000"))
    database.administer(
        lambda tx: tx.execute(
            "UPDATE workers SET lease_until = lease_until + 3600000000, renewed_at = renewed_at + 3600000000"
        )
    )

    assert await leases.hold(database, "chore", "b", lease_us=60_000_000)
    database.transaction_blocking(lambda tx: attempts.reap_workers(tx, principal="test"))
    (worker,) = await workers.list_workers(database)
    assert (worker["id"], worker["state"]) == (gone, "running")
    assert worker["lease_until"] - worker["renewed_at"] == 1_000_000
    assert worker["lease_until"] < worker["now"] + 2_000_000


async def test_a_released_lease_is_free_at_once(database: Database) -> None:
    await leases.hold(database, "chore", "a", lease_us=60_000_000)

    await leases.release(database, "chore", "a")

    assert await leases.hold(database, "chore", "b", lease_us=60_000_000)
    assert start_worker(database)
