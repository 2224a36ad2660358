"""Approvals on both stores: who may decide, what a decision does, and that it happens once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pilothouse import payloads
from pilothouse.clock import FrozenClock
from pilothouse.control import approvals, asking, cancels, checks, keys
from pilothouse.control.approvals import Filter, Handover, Said
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.waits import Wait
from pilothouse.domain.approvals import Decider
from pilothouse.domain.keys import KeyRole
from pilothouse.errors import Conflict, Forbidden, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    ARGUMENTS,
    actions_of,
    an_ask,
    card,
    checkpoint,
    claim,
    demand,
    ended,
    register,
    request,
    run_of,
    settle,
    start_worker,
    submit,
    submit_all,
    write,
)

ADA, GRACE, ALAN = Decider("key:ada"), Decider("key:grace"), Decider("key:alan", KeyRole.OPERATOR)


def asks(db: Database, worker: str, *, run: ClaimedRun | None = None, suspends: bool = True, **changes: Any) -> str:
    """A run that has asked, and waits; the approval's id."""
    if run is None:
        own = submit(db)
        run = next(each for each in claim(db, worker) if each.run_id == own)
    wanted = an_ask(**changes)
    assert write(db, checkpoint(run, f"{wanted.key}.asked", wanted.id)._replace(asks=(wanted,))) == [None]
    if suspends:
        settle(db, ended(run, "suspended", waits=(Wait("approval", wanted.id, wanted.key),)))
    return wanted.id


async def decide(db: Database, id: str, by: Decider, choice: Any = "approve", **options: Any) -> dict[str, Any]:
    note = options.pop("note", "" if choice == "approve" else "because")
    return await approvals.decide(db, id, Said(choice, note, **options), by)


def row_of(db: Database, id: str) -> Row:
    row = db.read_blocking(lambda tx: tx.fetch_one("approval_by_id", id=id))
    assert row is not None
    return row


def is_awake(db: Database, id: str) -> bool:
    return run_of(db, row_of(db, id)["run_id"])["available_at"] is not None


def new_key(db: Database, name: str, role: str = "operator", tenant: str | None = None) -> Decider:
    made = asyncio.run(keys.create_key(db, name, KeyRole(role), tenant=tenant, expires_at=None, principal="test"))
    return Decider(f"key:{name}", KeyRole(role), tenant, made.id)


async def test_a_yes_wakes_the_run_in_the_same_transaction(db: Database, worker: str) -> None:
    id = asks(db, worker)
    assert not is_awake(db, id)

    decided = await decide(db, id, ADA, note="fine")

    assert (decided["state"], decided["decided_by"], decided["note"]) == ("approved", "key:ada", "fine")
    assert is_awake(db, id)
    assert actions_of(db, id) == ["approval.requested", "approval.approved"]
    assert row_of(db, id)["requested_by"] == "test"


async def test_a_decision_before_the_run_sleeps_is_not_waited_for(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    id = asks(db, worker, run=run, suspends=False)

    await decide(db, id, ADA)
    settle(db, ended(run, "suspended", waits=(Wait("approval", id, "refund"),)))

    assert is_awake(db, id)


async def test_the_same_decision_again_is_answered_the_same_and_another_one_is_told(db: Database, worker: str) -> None:
    id = asks(db, worker)
    first = await decide(db, id, ADA)

    assert await decide(db, id, ADA) == first
    for by, choice in ((ADA, "reject"), (GRACE, "approve"), (GRACE, "reject")):
        with pytest.raises(Conflict, match=r"was approved by key:ada at .*that decision stands"):
            await decide(db, id, by, choice)
    assert actions_of(db, id) == ["approval.requested", "approval.approved"]


@pytest.mark.parametrize(("choice", "state"), [("reject", "rejected"), ("revise", "returned")])
async def test_a_no_needs_a_reason(db: Database, worker: str, choice: Any, state: str) -> None:
    id = asks(db, worker)

    with pytest.raises(InvalidInput, match="say why"):
        await decide(db, id, ADA, choice, note=" ")
    decided = await decide(db, id, ADA, choice, note="too much")

    assert (decided["state"], decided["note"], is_awake(db, id)) == (state, "too much", True)


async def test_edited_arguments_are_checked_and_hashed_anew(db: Database, worker: str) -> None:
    id = asks(db, worker)

    for wrong in (
        {"order": 7},
        {"order": 7, "amount_usd": 101},
        {"order": "7", "amount_usd": 5},
        {**ARGUMENTS, "x": 1},
    ):
        with pytest.raises(InvalidInput, match="the edited arguments do not fit 'refund'"):
            await decide(db, id, ADA, arguments=wrong)
    with pytest.raises(InvalidInput, match="only who approves"):
        await decide(db, id, ADA, "reject", arguments=ARGUMENTS)
    decided = await decide(db, id, ADA, arguments={"order": 7, "amount_usd": 50})

    assert decided["decided_arguments"] == {"order": 7, "amount_usd": 50}
    assert decided["decided_hash"] == payloads.digest(payloads.encode(decided["decided_arguments"]))
    assert decided["decided_hash"] != decided["arguments_hash"]


async def test_two_different_people_must_say_yes_to_the_same_arguments(db: Database, worker: str) -> None:
    id = asks(db, worker, risk=4, quorum=2)

    assert (await decide(db, id, ADA))["state"] == "pending"
    assert (await decide(db, id, ADA))["state"] == "pending"
    edited = await decide(db, id, GRACE, arguments={"order": 7, "amount_usd": 50})
    assert (edited["state"], is_awake(db, id)) == ("pending", False)
    with pytest.raises(Conflict, match="edited meanwhile"):
        await decide(db, id, ADA, seen_hash=edited["arguments_hash"])
    decided = await decide(db, id, ADA, seen_hash=edited["decided_hash"])

    assert (decided["state"], decided["decided_arguments"]) == ("approved", {"order": 7, "amount_usd": 50})
    assert actions_of(db, id).count("approval.voted") == 2


async def test_one_person_with_links_on_two_channels_is_not_two_people(db: Database, worker: str) -> None:
    two, one = asks(db, worker, risk=4, quorum=2), asks(db, worker)

    for channel in ("email:ops@example.com", "telegram:42"):
        with pytest.raises(Forbidden, match="a link tells nobody apart"):
            await decide(db, two, Decider(channel, KeyRole.OPERATOR))
    assert (await decide(db, one, Decider("telegram:42", KeyRole.OPERATOR)))["state"] == "approved"


async def test_one_no_is_enough(db: Database, worker: str) -> None:
    id = asks(db, worker, risk=4, quorum=2)
    await decide(db, id, ADA)

    assert (await decide(db, id, GRACE, "reject"))["state"] == "rejected"


async def test_nobody_approves_what_they_asked_for(db: Database, worker: str) -> None:
    id = asks(db, worker)
    run_id = row_of(db, id)["run_id"]

    for by in (Decider("test"), Decider(f"run:{run_id}"), Decider("run:other"), Decider("worker:1")):
        with pytest.raises(Forbidden):
            await decide(db, id, by)


def test_without_keys_nobody_is_told_apart_and_the_quorum_still_counts_people(db: Database, worker: str) -> None:
    submit(db)
    db.administer(lambda tx: tx.execute("UPDATE audit SET principal = 'cli:ada' WHERE action = 'run.submitted'"))
    (run,) = claim(db, worker)
    own, two = asks(db, worker, run=run, suspends=False), asks(db, worker, quorum=2)
    me, api = Decider("cli:ada"), Decider("api:local")

    assert asyncio.run(decide(db, own, me))["state"] == "approved"
    assert asyncio.run(decide(db, two, me))["state"] == "pending"
    assert asyncio.run(decide(db, two, api))["state"] == "pending"
    settle(db, ended(run))


def test_with_keys_the_command_line_does_not_approve_its_own_runs_either(db: Database, worker: str) -> None:
    new_key(db, "somebody")
    submit(db)
    db.administer(lambda tx: tx.execute("UPDATE audit SET principal = 'cli:ada' WHERE action = 'run.submitted'"))
    (run,) = claim(db, worker)
    id = asks(db, worker, run=run)

    with pytest.raises(Forbidden, match="nobody approves what they asked for"):
        asyncio.run(decide(db, id, Decider("cli:ada")))
    assert asyncio.run(decide(db, id, Decider("cli:grace")))["state"] == "approved"


def test_a_senior_reviewer_is_an_admin(db: Database, worker: str) -> None:
    operator, admin, viewer = (new_key(db, name, name) for name in ("operator", "admin", "viewer"))
    id = asks(db, worker, risk=3, reviewer="admin")

    with pytest.raises(Forbidden, match="senior reviewer"):
        asyncio.run(decide(db, id, operator))
    with pytest.raises(Forbidden, match="viewer"):
        asyncio.run(decide(db, id, viewer))
    assert asyncio.run(decide(db, id, admin))["state"] == "approved"


def test_a_key_revoked_since_the_request_came_decides_nothing(db: Database, worker: str) -> None:
    holder = new_key(db, "ada")
    id = asks(db, worker)
    assert holder.key_id is not None
    asyncio.run(keys.revoke_key(db, holder.key_id, principal="test"))

    with pytest.raises(Forbidden, match="was revoked or has expired; nothing was decided"):
        asyncio.run(decide(db, id, holder))
    assert row_of(db, id)["state"] == "pending"


def test_another_tenants_approval_is_not_there(db: Database, worker: str) -> None:
    id = asks(db, worker)
    stranger = new_key(db, "stranger", tenant="acme")

    with pytest.raises(NotFound):
        asyncio.run(decide(db, id, stranger))
    with pytest.raises(NotFound):
        asyncio.run(approvals.delegate(db, id, Handover("cli:x"), stranger))
    with pytest.raises(NotFound):
        asyncio.run(approvals.show_approval(db, id, tenant="acme"))


def test_who_it_was_given_to_decides_or_a_senior(db: Database, worker: str) -> None:
    ada, grace = new_key(db, "ada"), new_key(db, "grace")
    id = asks(db, worker)

    with pytest.raises(InvalidInput, match="no active API key named 'alan'"):
        asyncio.run(approvals.delegate(db, id, Handover("key:alan"), ada))
    for nobody in ("grace", "key:", "run:1", "test"):
        with pytest.raises(InvalidInput, match=r"is nobody|no active"):
            asyncio.run(approvals.delegate(db, id, Handover(nobody), ada))
    given = asyncio.run(approvals.delegate(db, id, Handover("key:grace", "yours"), ada))
    assert given["assigned_to"] == "key:grace"
    with pytest.raises(Forbidden, match="given to key:grace"):
        asyncio.run(decide(db, id, ada))
    assert asyncio.run(decide(db, id, grace))["state"] == "approved"
    assert actions_of(db, id) == ["approval.requested", "approval.delegated", "approval.approved"]
    with pytest.raises(Conflict):
        asyncio.run(approvals.delegate(db, id, Handover("cli:x"), ada))


async def test_a_channel_that_it_is_given_to_is_told_and_decides(db: Database, worker: str) -> None:
    mail, channels = "email:grace@example.com", ("telegram:42", "email:grace@example.com")
    register(db, card(asking.NOTIFY_AGENT))
    one, two, ours = asks(db, worker), asks(db, worker, quorum=2), asks(db, worker)
    by_link = Decider(mail, KeyRole.OPERATOR)

    for wrong, told in ((one, "no message goes to 'email:x@y'"), (two, "it takes a key")):
        to = mail if wrong == two else "email:x@y"
        with pytest.raises(InvalidInput, match=told):
            await approvals.delegate(db, wrong, Handover(to, channels=channels), ADA)
    await approvals.delegate(db, one, Handover(mail, channels=channels), ADA)
    await approvals.delegate(db, ours, Handover("cli:grace", channels=channels), ADA)

    assert notices(db) == {(one, mail), (ours, mail), (ours, "telegram:42")}
    with pytest.raises(Forbidden, match="was given to"):
        await decide(db, one, ALAN)
    assert (await decide(db, one, by_link))["state"] == "approved"


def notices(db: Database) -> set[tuple[str, str]]:
    """The approvals that people are told of as given away, and where."""
    rows = db.administer(lambda tx: tx.fetch_all("SELECT input FROM runs WHERE agent = 'pilothouse.notify'"))
    told = [payloads.decode(row["input"]) for row in rows]
    return {(each["approval"], each["channel"]) for each in told if each["event"] == "delegated"}


async def test_a_cancelled_run_asks_nobody_any_more(db: Database, worker: str) -> None:
    id = asks(db, worker)

    await cancels.cancel_run(db, row_of(db, id)["run_id"], principal="test")

    assert row_of(db, id)["state"] == "withdrawn"
    assert actions_of(db, id)[-1] == "approval.withdrawn"
    with pytest.raises(Conflict, match="withdrawn"):
        await decide(db, id, ADA)


@pytest.mark.parametrize("ending", ["fatal", "succeeded", "cancelled"])
def test_a_run_that_ends_otherwise_asks_nobody_any_more(db: Database, worker: str, ending: Any) -> None:
    submit(db)
    (run,) = claim(db, worker)
    id = asks(db, worker, run=run, suspends=False)

    settle(db, ended(run, ending)._replace(has_asked=True))

    assert row_of(db, id)["state"] == "withdrawn"


async def test_asking_again_is_another_round(db: Database, worker: str) -> None:
    submit(db)
    (run,) = claim(db, worker)
    first = asks(db, worker, run=run, suspends=False)
    await decide(db, first, ADA, "revise")

    again = an_ask()
    assert write(db, checkpoint(run, "refund.asked-2", again.id)._replace(asks=(again,))) == [None]

    assert (row_of(db, first)["round"], row_of(db, again.id)["round"]) == (1, 2)
    listed = await approvals.list_approvals(db, Filter(run_id=run.run_id))
    assert [row["id"] for row in listed] == [again.id, first]
    shown = await approvals.show_approval(db, again.id)
    assert [each["id"] for each in shown["similar"]] == [first]
    settle(db, ended(run)._replace(has_asked=True))


def test_of_two_who_decide_at_once_one_wins_and_the_other_is_told(db: Database, worker: str) -> None:
    for _ in range(5):
        id = asks(db, worker)
        together, answers = threading.Barrier(4), list[object]()

        def click(by: Decider, choice: str, id: str = id, together: threading.Barrier = together) -> None:
            said = Said(choice, "because")  # type: ignore[arg-type]
            together.wait()
            try:
                answers.append(asyncio.run(approvals.decide(db, id, said, by))["state"])  # noqa: B023
            except Conflict as error:
                answers.append(error)  # noqa: B023

        clicks = [(ADA, "approve"), (ADA, "approve"), (GRACE, "reject"), (ALAN, "reject")]
        threads = [threading.Thread(target=click, args=each) for each in clicks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        state = row_of(db, id)["state"]
        agreed = [answer for answer in answers if answer == state]
        assert len(agreed) == (2 if state == "approved" else 1), answers
        assert all(isinstance(answer, Conflict) for answer in answers if answer != state)
        assert len(actions_of(db, id)) == 2


# --- deadlines ---------------------------------------------------------------------------------


@pytest.fixture
def frozen(database_url: str) -> Iterator[Database]:
    db = open_database(database_url, clock=FrozenClock(1_800_000_000_000_000))
    db.start()
    migrate(db)
    register(db, card("echo"), card(asking.NOTIFY_AGENT))
    yield db
    assert not [v for v in asyncio.run(checks.check(db, grace_us=10**15)) if not v.holds]
    db.close()


def later(db: Database, hours: float) -> int:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=hours * 3600)
    return asyncio.run(asking.pass_deadlines(db, ("email:ops@example.com",), principal="system:approvals"))


HOUR_US = 3_600_000_000


def test_what_expires_is_no_rejection(frozen: Database) -> None:
    id = asks(frozen, start_worker(frozen), on_deadline="expire", deadline_us=HOUR_US)

    assert later(frozen, 0.5) == 0
    assert later(frozen, 0.5) == 1

    row = row_of(frozen, id)
    assert (row["state"], row["decided_by"], is_awake(frozen, id)) == ("expired", None, True)
    assert actions_of(frozen, id)[-1] == "approval.expired"
    with pytest.raises(Conflict, match="expired at"):
        asyncio.run(decide(frozen, id, ADA))


def test_past_its_deadline_nobody_decides_even_before_the_chore_comes(frozen: Database) -> None:
    id = asks(frozen, start_worker(frozen), on_deadline="expire", deadline_us=HOUR_US)
    assert isinstance(frozen.clock, FrozenClock)
    frozen.clock.advance(seconds=3600)

    with pytest.raises(Conflict, match="before anybody decided"):
        asyncio.run(decide(frozen, id, ADA))


def test_an_escalated_one_goes_to_senior_reviewers_who_are_told(frozen: Database) -> None:
    id = asks(frozen, start_worker(frozen), on_deadline="escalate", deadline_us=HOUR_US)

    assert (later(frozen, 1), later(frozen, 1)) == (1, 0)

    row = row_of(frozen, id)
    assert (row["state"], row["reviewer"], is_awake(frozen, id)) == ("pending", "admin", False)
    told = frozen.administer(lambda tx: tx.fetch_all("SELECT input FROM runs WHERE agent = 'pilothouse.notify'"))
    expected = {"approval": id, "channel": "email:ops@example.com", "event": "escalated"}
    assert [payloads.decode(each["input"]) for each in told] == [expected]
    with pytest.raises(Forbidden, match="senior"):
        asyncio.run(decide(frozen, id, ALAN))
    assert asyncio.run(decide(frozen, id, ADA))["state"] == "approved"


def test_one_that_waits_on_is_overdue_once(frozen: Database) -> None:
    id = asks(frozen, start_worker(frozen), on_deadline="wait", deadline_us=HOUR_US)

    assert (later(frozen, 1), later(frozen, 1)) == (1, 0)

    assert actions_of(frozen, id)[-1] == "approval.overdue"
    assert asyncio.run(decide(frozen, id, ADA))["state"] == "approved"


@pytest.mark.slow
def test_ten_thousand_expire_at_once(frozen: Database) -> None:
    worker, count = start_worker(frozen), 10_000
    for _ in range(count // 500):
        submit_all(frozen, *(request() for _ in range(500)))
        runs = claim(frozen, worker, wanted=demand(reserved=500))
        wanted = {run.run_id: an_ask(on_deadline="expire", deadline_us=HOUR_US) for run in runs}
        write(frozen, *(checkpoint(run, "a")._replace(asks=(wanted[run.run_id],)) for run in runs))
        frozen.administer(lambda tx: tx.execute("ANALYZE"))  # as any database that has grown to this size
        waits = {run.run_id: (Wait("approval", wanted[run.run_id].id, "a"),) for run in runs}
        settle(frozen, *(ended(run, "suspended", waits=waits[run.run_id]) for run in runs))

    began = time.monotonic()
    passed = later(frozen, 1)
    took = time.monotonic() - began

    assert passed == count
    rows = frozen.administer(lambda tx: tx.fetch_all("SELECT state, count(*) AS n FROM approvals GROUP BY state"))
    assert rows == [{"state": "expired", "n": count}]
    awake = frozen.administer(
        lambda tx: tx.fetch_all("SELECT count(*) AS n FROM runs WHERE state = 'waiting' AND available_at IS NOT NULL")
    )
    assert awake == [{"n": count}]
    assert took < 60, f"{count} approvals expired in {took:.2f} s on {frozen.dialect}"


# --- any order of anything ---------------------------------------------------------------------


MAIL = "email:ops@example.com"


class Deciding(RuleBasedStateMachine):
    """Whatever people do to an approval in whatever order: it is decided once, by enough of them, and wakes its run."""

    database: Database
    worker: str

    @initialize(quorum=st.integers(1, 3), on_deadline=st.sampled_from(["wait", "escalate", "expire"]))
    def ask(self, quorum: int, on_deadline: str) -> None:
        self.quorum = quorum
        values: dict[str, Any] = {"quorum": quorum, "on_deadline": on_deadline, "deadline_us": 10 * HOUR_US}
        self.id = asks(self.database, self.worker, **values)
        self.decided: tuple[str, str | None, str | None] | None = None
        self.is_escalated = False

    def current(self) -> tuple[str, str | None, str | None]:
        row = row_of(self.database, self.id)
        return row["state"], row["decided_by"], row["decided_hash"]

    @rule(
        who=st.sampled_from(["key:ada", "key:grace", "key:alan", MAIL, "telegram:42", "test"]),
        role=st.sampled_from([KeyRole.OPERATOR, KeyRole.ADMIN]),
        choice=st.sampled_from(["approve", "approve", "approve", "reject", "revise"]),
        amount=st.sampled_from([None, None, 50, 60]),
    )
    def say(self, who: str, role: KeyRole, choice: str, amount: int | None) -> None:
        edited = None if amount is None or choice != "approve" else {"order": 7, "amount_usd": amount}
        said = Said(choice, "because", edited)  # type: ignore[arg-type]
        try:
            told = asyncio.run(approvals.decide(self.database, self.id, said, Decider(who, role)))
        except (Conflict, Forbidden):
            return
        assert who != "test"
        if self.decided is not None:
            assert told["state"] == self.decided[0]

    @rule(to=st.sampled_from(["cli:grace", MAIL, "test"]), role=st.sampled_from([KeyRole.OPERATOR, KeyRole.ADMIN]))
    def give(self, to: str, role: KeyRole) -> None:
        handover = Handover(to, channels=(MAIL,))
        with suppress(Conflict, Forbidden, InvalidInput):
            asyncio.run(approvals.delegate(self.database, self.id, handover, Decider("key:ada", role)))
            assert to != "test"
            assert to != MAIL or self.quorum == 1

    @rule(hours=st.floats(0, 6))
    def wait(self, hours: float) -> None:
        later(self.database, hours)

    @rule()
    def cancel(self) -> None:
        run_id = row_of(self.database, self.id)["run_id"]
        asyncio.run(cancels.cancel_run(self.database, run_id, principal="test"))

    @invariant()
    def a_decision_is_final(self) -> None:
        now = self.current()
        if self.decided is not None:
            assert now == self.decided
        elif now[0] != "pending":
            self.decided = now

    @invariant()
    def enough_people_agree_to_what_is_approved(self) -> None:
        row = row_of(self.database, self.id)
        votes = self.database.read_blocking(lambda tx: tx.fetch_all("votes_of_approval", id=self.id))
        by_links = {vote["principal"] for vote in votes} & {MAIL, "telegram:42"}
        assert self.quorum == 1 or not by_links, "one person may read both"
        if row["state"] != "approved":
            return
        agreed = row["decided_hash"] or row["arguments_hash"]
        assert len({v["principal"] for v in votes if v["arguments_hash"] == agreed}) >= self.quorum

    @invariant()
    def its_run_sleeps_exactly_while_it_is_pending(self) -> None:
        run = run_of(self.database, row_of(self.database, self.id)["run_id"])
        is_asleep = run["state"] == "waiting" and run["available_at"] is None
        assert is_asleep == (self.current()[0] == "pending")

    @invariant()
    def what_happened_is_in_the_audit(self) -> None:
        ends = [action for action in actions_of(self.database, self.id) if action.split(".")[1] in FINAL]
        assert len(ends) == (self.current()[0] != "pending")


FINAL = {"approved", "rejected", "returned", "expired", "withdrawn"}


def test_approvals_in_any_order(frozen: Database) -> None:
    database, worker = frozen, start_worker(frozen, lease_us=10**15)
    machine = type("Machine", (Deciding,), {"database": database, "worker": worker})
    count = 40 if frozen.dialect == "sqlite" else 15

    run_state_machine_as_test(machine, settings=settings(max_examples=count, stateful_step_count=8, deadline=None))
