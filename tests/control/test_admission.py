"""Bounded queues: what does not fit is refused at once, and what leaves the queue makes room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.control import checks, runs
from pilothouse.control.admission import FRESH_SECONDS, Admission
from pilothouse.control.runs import Submitted, Submitter
from pilothouse.domain.queues import QueueLimits
from pilothouse.errors import Conflict, QueueFull
from pilothouse.store.database import Database
from tests.control.steps import card, claim, demand, ended, register, request, settle, start_worker


def admit(db: Database, admission: Admission, now: float, *tenants: str, lane: str | None = None) -> list[bool]:
    wanted = [request(tenant=tenant, lane=lane) for tenant in tenants]
    answers = db.transaction_blocking(
        lambda tx: runs.insert_planned(tx, wanted, admission.admit(tx, runs.plan_runs(tx, wanted), now))
    )
    return [isinstance(answer, Submitted) for answer in answers]


def test_a_full_tenant_is_refused_and_others_are_not(database: Database) -> None:
    register(database, card("echo"))
    admission = Admission(QueueLimits(per_tenant=2))

    assert admit(database, admission, 0.0, "a", "a", "a", "b") == [True, True, False, True]
    assert admit(database, admission, 0.1, "a", "b", "b") == [False, True, False]


def test_a_full_lane_is_refused_and_others_are_not(database: Database) -> None:
    register(database, card("echo"))
    admission = Admission(QueueLimits(per_lane=2))

    assert admit(database, admission, 0.0, *"abc") == [True, True, False]
    assert admit(database, admission, 0.1, "d", lane="critical") == [True]


def test_what_is_claimed_makes_room_and_what_is_queued_again_takes_it(database: Database) -> None:
    register(database, card("echo"))
    admission = Admission(QueueLimits(per_tenant=2))
    admit(database, admission, 0.0, "a", "a")
    first, _ = claim(database, start_worker(database), wanted=demand(normal=2))

    assert admit(database, admission, 2 * FRESH_SECONDS, "a", "a", "a") == [True, True, False]
    settle(database, ended(first, "snoozed"))
    claim(database, start_worker(database), wanted=demand(normal=1))
    assert admit(database, admission, 4 * FRESH_SECONDS, "a") == [False], "two others are still queued"
    assert [v.name for v in database.read_blocking(lambda tx: checks.verdicts(tx, 10**12)) if not v.holds] == []


def test_every_process_sees_what_the_others_have_submitted(database: Database) -> None:
    register(database, card("echo"))
    one, other = Admission(QueueLimits(per_tenant=3)), Admission(QueueLimits(per_tenant=3))

    assert admit(database, one, 0.0, "a", "a") == [True, True]
    assert admit(database, other, 0.0, "a", "a") == [True, False]


async def test_a_refusal_says_when_to_come_back_and_stores_nothing(database: Database) -> None:
    register(database, card("echo"))
    submitter = Submitter(database, QueueLimits(per_tenant=1))
    await submitter.submit(request())

    with pytest.raises(QueueFull, match="the queue of tenant 'default' is full: 1 runs wait in it") as raised:
        await submitter.submit(request())
    assert raised.value.retry_after_seconds > 0
    assert len(database.administer(lambda tx: tx.fetch_all("SELECT id FROM runs"))) == 1


async def test_who_asks_again_for_an_accepted_run_is_told_of_it_however_full_the_queue_is(database: Database) -> None:
    register(database, card("echo"))
    submitter = Submitter(database, QueueLimits(per_tenant=1))
    accepted = await submitter.submit(request(idempotency_key="once"))

    again = await submitter.submit(request(idempotency_key="once"))

    assert (again.id, again.is_new) == (accepted.id, False)
    with pytest.raises(Conflict, match="from another input"):
        await submitter.submit(request(idempotency_key="once", input={"text": "other"}))
    with pytest.raises(QueueFull):
        await submitter.submit(request(idempotency_key="twice"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["low", "normal"])), max_size=30), st.data())
def test_no_queue_of_one_process_ever_passes_its_limit(wanted: list[tuple[str, str]], data: st.DataObject) -> None:
    limits = QueueLimits(data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))
    admission = Admission(limits)

    class Empty:
        def fetch_all(self, _statement: str) -> list[dict[str, object]]:
            return []

    rows = [{"tenant": tenant, "lane": lane} for tenant, lane in wanted]
    answers = admission.admit(Empty(), rows, 0.0)  # type: ignore[arg-type]  # all that it reads

    taken = [row for row, answer in zip(wanted, answers, strict=True) if not isinstance(answer, QueueFull)]
    assert all(sum(tenant == each for tenant, _ in taken) <= limits.per_tenant for each in "abc")
    assert all(sum(lane == each for _, lane in taken) <= limits.per_lane for each in ("low", "normal"))
