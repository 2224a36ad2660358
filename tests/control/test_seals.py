"""Sealing on both stores: beside writers, in batches, and found out whatever is done to the rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import audit, checks, seals
from pilothouse.control.retention import Pruner
from pilothouse.errors import ConfigError
from pilothouse.store.database import Database, Transaction, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import card, claim, ended, register, request, settle, start_worker, submit, submit_all

DAY_US = 86_400_000_000


@pytest.fixture
async def sealed(database: Database) -> Database:
    register(database, card("echo"))
    for _ in range(3):
        submit_all(database, *(request() for _ in range(4)))
        await seals.Sealer(database).seal()
    return database


async def test_everything_is_sealed_and_holds(sealed: Database) -> None:
    done = await seals.verify(sealed)

    assert (done.holds, done.seals, done.records, done.unsealed) == (True, 3, 13, 0)
    assert (await seals.verify(sealed, anchor=done.head)).holds
    assert "no seal has the hash abc" in (await seals.verify(sealed, anchor="abc")).findings[0].problem


@pytest.mark.corrupts
@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE audit SET reason = 'nothing' WHERE seq = 3", (3, "changed")),
        ("UPDATE audit SET principal = 'someone' WHERE seq = 8", (8, "changed")),
        ("DELETE FROM audit WHERE seq = 5", (5, "removed")),
        ("DELETE FROM audit_seals WHERE number = 2", (None, "the seals 2 to 2 were removed")),
        ("UPDATE audit_seals SET records = 1 WHERE number = 1", (None, "the seal itself was changed")),
    ],
)
async def test_what_was_done_to_the_rows_is_named(sealed: Database, sql: str, problem: Any) -> None:
    sealed.administer(lambda tx: tx.execute(sql))

    found = (await seals.verify(sealed)).findings
    assert (found[0].seq, found[0].problem) == problem
    verdicts = await checks.check(sealed, grace_us=10**12)
    assert [v.holds for v in verdicts if "audit record" in v.name] == [False]


async def test_a_copy_is_proved_without_the_database(sealed: Database) -> None:
    submit_all(sealed, request())
    lines: list[str] = []
    count = await seals.export(sealed, lines.append)

    done = seals.verify_lines(lines)
    assert (done.holds, done.records, done.unsealed, count) == (True, 13, 1, len(lines))
    forged = [line.replace('"run.submitted"', '"run.forged"') for line in lines]
    assert {finding.problem for finding in seals.verify_lines(forged).findings} == {"changed"}
    assert [finding.problem for finding in seals.verify_lines([*lines[:3], *lines[4:]]).findings] == ["removed"]
    with pytest.raises(ConfigError, match="line 1 is not of an audit export"):
        seals.verify_lines(["nonsense"])
    assert await seals.export(sealed, lambda _: None, after_seal=3) == 1


async def test_a_large_backlog_takes_several_seals(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "BATCH", 5)
    register(database, card("echo"))
    submit_all(database, *(request() for _ in range(21)))
    await seals.Sealer(database).seal()

    done = await seals.verify(database)
    assert (done.holds, done.records, done.seals) == (True, 22, 5)


async def test_sealing_beside_writers_leaves_nothing_out(database: Database) -> None:
    """Numbers are taken before commits: a record that comes late must still be under a seal, and none may be missed."""
    register(database, card("echo"))
    done = threading.Event()

    def write() -> None:
        for _ in range(40):
            submit_all(database, *(request() for _ in range(5)))

    def write_all() -> None:
        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()

    writing = asyncio.create_task(asyncio.to_thread(write_all))
    sealer = seals.Sealer(database)
    while not done.is_set():
        await sealer.seal()
        await asyncio.sleep(0)
    await writing
    await sealer.seal()
    await sealer.seal()

    found = await seals.verify(database)
    assert (found.findings, found.records, found.unsealed) == ([], 601, 0)


async def test_a_number_taken_before_a_commit_that_is_yet_to_come_is_waited_for(database: Database) -> None:
    """The writer holds its number while nothing else ends: then no snapshot tells of it, only its lock does."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time: whatever is seen there is final")
    follower = audit.Follower(database, after=0)
    has_written, may_commit = threading.Event(), threading.Event()

    def write(tx: Transaction) -> None:
        tx.send_many("insert_audit", [audit.entry("late", "test", "1", principal="test")])
        audit.end_in(tx)
        has_written.set()
        assert may_commit.wait(30)

    writing = asyncio.create_task(asyncio.to_thread(database.transaction_blocking, write))
    assert await asyncio.to_thread(has_written.wait, 30)
    register(database, card("echo"))
    sealer = seals.Sealer(database)
    for _ in range(3):
        await sealer.seal()
        assert await follower.next() == []
    assert (await seals.verify(database)).seals == 0
    may_commit.set()
    await writing
    for _ in range(2):
        await sealer.seal()

    done = await seals.verify(database)
    assert (done.findings, done.records, done.unsealed) == ([], 2, 0)
    assert [row["action"] for row in [*await follower.next(), *await follower.next()]] == ["late", "agent.registered"]


@pytest.fixture
def aged(database_url: str) -> Iterator[Database]:
    clock = FrozenClock(1_800_000_000_000_000)
    db = open_database(database_url, clock=clock)
    db.start()
    migrate(db)
    register(db, card("echo"))
    yield db
    db.close()


async def test_old_records_leave_a_whole_seal_at_a_time_and_the_chain_stays(aged: Database) -> None:
    assert isinstance(aged.clock, FrozenClock)
    sealer = seals.Sealer(aged)
    first = submit(aged)
    (claimed,) = claim(aged, start_worker(aged))
    await sealer.seal()
    aged.clock.advance(seconds=40 * 86_400)
    submit_all(aged, request(), request())
    await sealer.seal()
    before = await seals.verify(aged)
    anchor = before.head

    await Pruner(aged, None, 30 * DAY_US).prune()
    await sealer.seal()
    done = await seals.verify(aged, anchor=anchor)

    assert (done.holds, done.pruned, done.records) == (True, 4, 3), "two submits, and what tells of the pruning"
    kept = await audit.tail(aged)
    assert [record["action"] for record in kept] == ["audit.pruned", "run.submitted", "run.submitted"]
    assert (kept[0]["entity_id"], kept[0]["reason"]) == ("seals 1 to 1", "4 records, up to number 4")
    settle(aged, ended(claimed))
    broken = [v for v in await checks.check(aged, grace_us=10**15) if not v.holds]
    assert not broken, "an attempt whose claim has left the audit is taken at its word"
    assert [record["action"] for record in await audit.tail(aged, entity_id=first)] == ["run.succeeded"]


async def test_a_copy_of_a_pruned_audit_is_proved_too(aged: Database) -> None:
    assert isinstance(aged.clock, FrozenClock)
    await seals.Sealer(aged).seal()
    aged.clock.advance(seconds=40 * 86_400)
    await Pruner(aged, None, 30 * DAY_US).prune()
    await seals.Sealer(aged).seal()
    lines: list[str] = []
    await seals.export(aged, lines.append)

    done = seals.verify_lines(lines)

    assert (done.holds, done.seals, done.pruned, done.records) == (True, 2, 1, 1)


@pytest.mark.corrupts
async def test_a_record_where_all_have_left_is_found(aged: Database) -> None:
    assert isinstance(aged.clock, FrozenClock)
    submit_all(aged, request())
    await seals.Sealer(aged).seal()
    aged.clock.advance(seconds=40 * 86_400)
    await Pruner(aged, None, 30 * DAY_US).prune()
    forged = "UPDATE audit SET seq = 2 WHERE action = 'audit.pruned'"
    if aged.dialect == "postgres":
        forged = f"ALTER TABLE audit ALTER seq DROP IDENTITY; {forged}"
    aged.administer(lambda tx: [tx.execute(each) for each in forged.split(";")])

    found = (await seals.verify(aged)).findings
    assert [(each.seal, each.seq, each.problem) for each in found] == [(1, 2, "inserted")]


async def test_what_is_not_sealed_or_not_old_stays(aged: Database) -> None:
    assert isinstance(aged.clock, FrozenClock)
    await seals.Sealer(aged).seal()
    aged.clock.advance(seconds=29 * 86_400)
    submit_all(aged, request())
    await Pruner(aged, None, 30 * DAY_US).prune()
    assert len(await audit.tail(aged)) == 2
    aged.clock.advance(seconds=40 * 86_400)
    await Pruner(aged, None, None).prune()
    assert len(await audit.tail(aged)) == 2

    await Pruner(aged, None, 30 * DAY_US).prune()

    assert [record["action"] for record in await audit.tail(aged)] == ["audit.pruned", "run.submitted"]


async def test_many_small_seals_leave_together(aged: Database) -> None:
    assert isinstance(aged.clock, FrozenClock)
    sealer = seals.Sealer(aged)
    for _ in range(2 * seals.SEALS_AT_ONCE + 5):
        submit_all(aged, request())
        await sealer.seal()
    aged.clock.advance(seconds=40 * 86_400)
    await Pruner(aged, None, 30 * DAY_US).prune()

    told = await audit.tail(aged)
    assert [record["entity_id"] for record in told] == ["seals 201 to 205", "seals 101 to 200", "seals 1 to 100"]
    assert (await seals.verify(aged)).pruned == 206
