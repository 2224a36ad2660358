"""Kill switches on both stores: what they keep from being taken and claimed, whom they make wait, and who is woken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from pilothouse.control import attempts, runs, switchboard, switches, workers
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.concurrency import AgentVersion
from pilothouse.control.switchboard import Switches
from pilothouse.control.switches import TripOrder
from pilothouse.control.timeline import why
from pilothouse.control.waits import Wait
from pilothouse.domain.switches import SwitchMode, Target
from pilothouse.errors import InvalidInput, NotFound, Refused, SwitchedOff
from pilothouse.store.database import Database, Row
from tests.control.steps import (
    actions_of,
    card,
    checkpoint,
    claim,
    demand,
    ended,
    reap,
    register,
    request,
    run_of,
    settle,
    start_worker,
    state_of,
    submit,
    submit_all,
    write,
)
from tests.patience import WAIT_SECONDS

EVERY_SCOPE = ("global", "tenant:default", "agent:echo", "lane:normal", "version:f")


def trip(db: Database, scope: str, mode: str = "hold", reason: str = "because") -> Row:
    return asyncio.run(switches.trip_switch(db, TripOrder(scope, SwitchMode(mode), reason), principal="test"))


def reset(db: Database, scope: str) -> Row:
    return asyncio.run(switches.reset_switch(db, scope, principal="test"))


def suspend_on(db: Database, run: ClaimedRun, scope: str) -> None:
    settle(db, ended(run, "suspended", waits=(Wait("switch", scope, f"switch {scope}"),)))


def told(db: Database, run_id: str) -> tuple[str, str]:
    found = asyncio.run(why(db, run_id))
    return "; ".join(found["reasons"]), found["next"]


# --- what is not claimed -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hold", "drain", "abort"])
@pytest.mark.parametrize("scope", EVERY_SCOPE)
def test_what_a_switch_covers_is_not_claimed_until_its_reset(db: Database, worker: str, scope: str, mode: str) -> None:
    run_id = submit(db)
    trip(db, scope, mode)

    assert claim(db, worker, agents=("echo", "other")) == []
    assert state_of(db, run_id) == "queued"
    reset(db, scope)
    assert [run.run_id for run in claim(db, worker)] == [run_id]


def test_what_a_switch_does_not_cover_is_claimed(db: Database, worker: str) -> None:
    for scope in ("tenant:acme", "agent:other", "lane:low", "version:g", "tool:send"):
        trip(db, scope)
    held = {submit(db, "other"), submit(db, lane="low"), submit(db, tenant="acme")}
    free = {submit(db), submit(db, tenant="beta")}

    claimed = claim(db, worker, agents=("echo", "other"))

    assert {run.run_id for run in claimed} == free
    assert {state_of(db, id) for id in held} == {"queued"}


def test_submits_of_held_agents_are_refused_only_by_abort(db: Database) -> None:
    trip(db, "agent:echo", "hold")
    trip(db, "lane:low", "drain")
    assert submit(db, lane="low")

    trip(db, "agent:echo", "abort", "it deletes mail")
    refused, other = submit_all(db, request(), request("other"))

    assert isinstance(refused, SwitchedOff)
    assert "agent 'echo' takes no runs now: switch agent:echo (abort), tripped by test: it deletes mail" in str(refused)
    assert "`pilothouse switch reset agent:echo`" in str(refused)
    assert not isinstance(other, Refused)


@pytest.mark.parametrize("scope", EVERY_SCOPE)
def test_each_scope_refuses_submits_when_it_aborts(db: Database, scope: str) -> None:
    trip(db, scope, "abort")

    (refused,) = submit_all(db, request())

    assert isinstance(refused, SwitchedOff)


def test_a_run_that_was_taken_before_is_told_although_new_ones_are_refused(db: Database) -> None:
    run_id = submit(db, idempotency_key="k")
    trip(db, "global", "abort")

    (answer,) = submit_all(db, request(idempotency_key="k"))

    assert isinstance(answer, runs.Submitted)
    assert (answer.id, answer.is_new) == (run_id, False)


def test_children_are_never_refused(db: Database, worker: str) -> None:
    submit(db)
    (parent,) = claim(db, worker)
    trip(db, "global", "abort")
    child = request("other", parent_id=parent.run_id, root_id=parent.run_id)

    assert write(db, checkpoint(parent, "child", [child.id], children=(child,))) == [None]

    assert state_of(db, child.id) == "queued"
    settle(db, ended(parent))


def test_a_claim_of_limited_agents_heeds_switches_too(db: Database, worker: str) -> None:
    limited = AgentVersion("echo", 1, 1, "f", max_running=1)
    submit(db)
    trip(db, "tenant:default")

    claimed = db.transaction_blocking(lambda tx: attempts.claim_runs(tx, worker, demand(), [limited]))

    assert claimed == []


# --- who waits, and who is woken ---------------------------------------------------------------


def test_a_run_that_sleeps_on_a_switch_wakes_with_its_reset(db: Database, worker: str) -> None:
    ids = [submit(db) for _ in range(3)]
    claimed = claim(db, worker)
    trip(db, "agent:echo")
    for run in claimed:
        suspend_on(db, run, "agent:echo")
    assert {run_of(db, id)["available_at"] for id in ids} == {None}

    assert reset(db, "agent:echo")["released"] == 3

    again = claim(db, worker)
    assert {run.run_id for run in again} == set(ids)
    settle(db, *(ended(run) for run in again))
    assert db.read_blocking(lambda tx: tx.fetch_all("waits_of_run", run_id=ids[0])) == []


def test_a_switch_that_was_reset_meanwhile_is_not_waited_for(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)
    trip(db, "agent:echo")
    reset(db, "agent:echo")

    suspend_on(db, run, "agent:echo")

    assert [again.run_id for again in claim(db, worker)] == [run_id]


def test_a_wider_switch_still_holds_what_a_narrower_one_released(db: Database, worker: str) -> None:
    run_id = submit(db)
    (run,) = claim(db, worker)
    trip(db, "agent:echo")
    trip(db, "global")
    suspend_on(db, run, "agent:echo")

    reset(db, "agent:echo")

    assert claim(db, worker) == []
    assert told(db, run_id) == (
        f"it is held by switch global (hold), tripped by test: because, at {tripped_at(db, 'global')}",
        "once it may go on: `pilothouse switch reset global`",
    )
    reset(db, "global")
    assert len(claim(db, worker)) == 1


def tripped_at(db: Database, scope: str) -> str:
    from pilothouse.clock import isoformat

    return isoformat(asyncio.run(switches.show_switch(db, scope))["tripped_at"])


def test_no_wake_up_is_lost_when_a_reset_races_with_a_suspension(db: Database, worker: str) -> None:
    for _ in range(15):
        run_id = submit(db)
        (run,) = claim(db, worker)
        trip(db, "agent:echo")
        at_once(partial(suspend_on, db, run, "agent:echo"), lambda: reset(db, "agent:echo"))

        (again,) = claim(db, worker)
        assert again.run_id == run_id
        settle(db, ended(again))


def test_many_runs_that_settle_while_switches_change_are_all_woken(db: Database, worker: str) -> None:
    """Suspensions in several transactions, with parents and children among them, against resets of two switches."""
    for _ in range(4):
        ids = [submit(db) for _ in range(12)]
        claimed = claim(db, worker)
        trip(db, "agent:echo")
        trip(db, "global")
        thirds = [claimed[n::3] for n in range(3)]
        at_once(
            *(partial(suspend_all, db, part) for part in thirds),
            lambda: reset(db, "agent:echo"),
            lambda: reset(db, "global"),
        )

        again = claim(db, worker)
        assert {run.run_id for run in again} == set(ids)
        settle(db, *(ended(run) for run in again))


def suspend_all(db: Database, claimed: Sequence[ClaimedRun]) -> None:
    for run in claimed:
        suspend_on(db, run, "agent:echo")


def at_once(*works: Callable[[], object]) -> None:
    ready = threading.Barrier(len(works))
    failed: list[BaseException] = []

    def one(work: Callable[[], object]) -> None:
        ready.wait(timeout=WAIT_SECONDS)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


# --- trips and resets --------------------------------------------------------------------------


def test_every_trip_and_reset_has_an_epoch_of_its_own_and_an_audit_record(db: Database) -> None:
    first, again = trip(db, "agent:echo", "hold"), trip(db, "agent:echo", "abort", "worse")
    reset(db, "agent:echo")
    third = trip(db, "agent:echo", "drain")

    assert (first["epoch"], again["epoch"], third["epoch"]) == (1, 2, 4)
    assert actions_of(db, "agent:echo") == ["switch.tripped", "switch.tripped", "switch.reset", "switch.tripped"]
    records = db.read_blocking(lambda tx: tx.fetch_all("audit_of_entity", entity_id="agent:echo", after=0, limit=10))
    assert [(row["before"], row["after"], row["reason"]) for row in records[:3]] == [
        (None, "hold", "because"),
        ("hold", "abort", "worse"),
        ("abort", None, None),
    ]


def test_two_trips_at_once_both_stand_or_the_later_does(db: Database) -> None:
    at_once(lambda: trip(db, "global", "hold"), lambda: trip(db, "global", "abort"), lambda: trip(db, "agent:echo"))

    listed = asyncio.run(switches.list_switches(db))
    by_scope = {row["scope"]: row for row in listed}
    assert set(by_scope) == {"global", "agent:echo"}
    assert len({row["epoch"] for row in listed}) == 2
    assert max(row["epoch"] for row in listed) <= 3
    assert len(actions_of(db, "global")) == 2


def test_what_is_not_tripped_cannot_be_reset(db: Database) -> None:
    with pytest.raises(NotFound, match="switch agent:echo is not tripped"):
        reset(db, "agent:echo")
    with pytest.raises(InvalidInput, match="no scope of a switch"):
        reset(db, "echo")
    with pytest.raises(InvalidInput, match="did you mean 'agent:echo'"):
        trip(db, "agents:echo")
    with pytest.raises(NotFound):
        asyncio.run(switches.show_switch(db, "global"))


@pytest.mark.parametrize(
    ("scope", "note"),
    [
        ("agent:echo", None),
        ("agent:ehco", "no agent 'ehco' is registered; the switch is tripped all the same"),
        ("version:f", None),
        ("version:0", "no version '0' is registered; the switch is tripped all the same"),
        ("tenant:acme", "no tenant 'acme' is registered; the switch is tripped all the same"),
        ("tenant:default", None),
        ("lane:slow", "there is no lane 'slow'; the lanes are critical, normal, low"),
        ("tool:send", "no tool named 'send' was called in the last day; the switch is tripped all the same"),
        ("global", None),
    ],
)
def test_a_switch_of_what_nobody_knows_is_tripped_with_a_note(db: Database, scope: str, note: str | None) -> None:
    submit(db)

    assert trip(db, scope)["note"] == note

    assert [row["scope"] for row in asyncio.run(switches.list_switches(db))] == [scope]


# --- acknowledgement ---------------------------------------------------------------------------


def test_the_proof_waits_for_every_live_worker(db: Database) -> None:
    quick, silent, gone = start_worker(db), start_worker(db), start_worker(db)
    reap(db, gone)
    switch = trip(db, "global")
    acknowledge(db, quick, switch["epoch"])

    proof = asyncio.run(switches.prove_stop(db, switch, deadline_seconds=0.01))
    assert [row["id"] for row in proof.silent] == [silent]
    assert asyncio.run(switches.list_switches(db))[0]["silent"] == [silent]

    acknowledge(db, silent, switch["epoch"] + 1)
    proof = asyncio.run(switches.prove_stop(db, switch, deadline_seconds=5))
    assert (proof.silent, proof.before, proof.after) == ([], None, None)
    assert asyncio.run(switches.count_live_workers(db)) == (2, 0)


def acknowledge(db: Database, worker: str, epoch: int) -> None:
    db.transaction_blocking(lambda tx: workers.acknowledge_switches(tx, worker, epoch))


@pytest.mark.parametrize("scope", [*EVERY_SCOPE, "tool:send"])
@pytest.mark.corrupts
def test_the_effects_around_a_trip_are_those_it_covers(db: Database, worker: str, scope: str) -> None:
    submit(db)
    submit(db, "other", tenant="acme", lane="low")
    (mine,), (others,) = claim(db, worker), claim_other(db, worker)
    switch = trip(db, scope)
    for run, key, tool, offset in (
        (mine, "first", "send", -3_000),
        (mine, "last", "send", -2_000),
        (others, "later", "peek", -1_000),
        (others, "after", "peek", 1_000),
        (mine, "too late", "send", 2_000),
    ):
        called(db, run, key, tool, switch["tripped_at"] + offset)

    before, after = db.read_blocking(lambda tx: switches.effects_around(tx, switch))

    assert before is not None
    assert after is not None
    is_all = scope == "global"
    assert (before["key"], after["key"]) == (("later", "after") if is_all else ("last", "too late"))


def claim_other(db: Database, worker: str) -> list[ClaimedRun]:
    known = [AgentVersion("other", 1, 1, "g")]
    return db.transaction_blocking(lambda tx: attempts.claim_runs(tx, worker, demand(), known))


def called(db: Database, run: ClaimedRun, key: str, tool: str, at: int) -> None:
    columns = "run_id, key, attempt, tool, effect, called_by, arguments, outcome, cost_microusd, started_at, latency_us"
    values = f"'{run.run_id}', '{key}', 1, '{tool}', 'read', 'code', '{{}}', 'succeeded', 0, {at}, 5"
    db.administer(lambda tx: tx.execute(f"INSERT INTO tool_calls ({columns}) VALUES ({values})"))


# --- what a process has in memory --------------------------------------------------------------


async def test_a_process_sees_the_switches_at_its_next_look(database: Database) -> None:
    board, seen = Switches(database), list[int | None]()
    board.on_change = lambda: seen.append(board.epoch)
    target = Target("default", "echo", "normal", "f")
    assert not board.is_fresh

    await board.look()
    assert (board.is_fresh, board.held(target)) == (True, None)
    await switches.trip_switch(database, TripOrder("lane:normal"), principal="test")
    assert board.held(target) is None
    await board.refresh()
    held = board.held(target)

    assert held is not None
    assert (held.scope, held.mode, seen) == ("lane:normal", "hold", [0, 1])
    await switches.reset_switch(database, "lane:normal", principal="test")
    await asyncio.gather(*(board.refresh() for _ in range(20)))
    assert (board.held(target), seen) == (None, [0, 1, 2])


class Hand:
    """A clock that the test moves."""

    frozen = True

    def __init__(self) -> None:
        self.seconds = 100.0

    def now_us(self) -> int:
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds


async def test_what_was_seen_is_old_after_a_quarter_of_a_second(database: Database) -> None:
    clock = Hand()
    board = Switches(database, clock)
    await board.look()

    clock.seconds += switchboard.FRESH_SECONDS - 0.01
    assert board.is_fresh
    clock.seconds += 0.02
    assert not board.is_fresh


# --- why ---------------------------------------------------------------------------------------


def test_why_names_the_switch_who_tripped_it_and_the_way_out(db: Database, worker: str) -> None:
    queued, sleeping = submit(db, "other"), submit(db)
    (run,) = claim(db, worker)
    trip(db, "tool:send", reason="it sends twice")
    suspend_on(db, run, "tool:send")
    trip(db, "agent:other", "drain", reason="")

    reasons, advice = told(db, sleeping)
    assert reasons.startswith("it is held by switch tool:send (hold), tripped by test: it sends twice, at ")
    assert advice == "once it may go on: `pilothouse switch reset tool:send`"
    reasons, advice = told(db, queued)
    assert "it is held by switch agent:other (drain), tripped by test, without a reason, at " in reasons
    assert advice == "once it may go on: `pilothouse switch reset agent:other`"


def test_why_knows_workers_that_claim_nothing(db: Database) -> None:
    from pilothouse.clock import new_id
    from pilothouse.control.workers import WorkerCard
    from tests.control.steps import version_of

    off = WorkerCard(new_id(), "host", 1, "tests", "0", [version_of("echo")], {}, is_enabled=False)
    db.transaction_blocking(lambda tx: workers.register(tx, off, [], lease_us=60_000_000))
    run_id = submit(db)

    reasons, advice = told(db, run_id)

    assert "every live worker that runs agent 'echo' was started with ENGINE_ENABLED=false" in reasons
    assert "ENGINE_ENABLED=true" in advice
    assert asyncio.run(switches.count_live_workers(db)) == (1, 1)


def test_a_registered_agent_is_known_by_its_version(db: Database) -> None:
    register(db, card("newer", fingerprint="f2"))

    assert trip(db, "version:f2")["note"] is None
