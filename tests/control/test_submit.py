"""Submitting: what is refused and why, idempotency, and batches in which each run has its own answer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pilothouse.control.runs import Submitted, Submitter
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database
from tests.control.steps import actions_of, claim, request, run_of, start_worker, state_of, submit, submit_all


def test_a_run_is_queued_with_one_audit_record(db: Database) -> None:
    run_id = submit(db, "greet", {"name": "Ada"}, tenant="acme")

    run = run_of(db, run_id)
    assert (run["state"], run["lane"], run["tenant"], run["input"]) == ("queued", "normal", "acme", '{"name":"Ada"}')
    assert actions_of(db, run_id) == ["run.submitted"]


def test_an_unknown_agent_is_refused_with_the_closest_name(db: Database) -> None:
    (answer,) = submit_all(db, request("gret"))

    assert isinstance(answer, NotFound)
    assert "did you mean 'greet'?" in str(answer)


@pytest.mark.parametrize(
    ("input", "field"),
    [({}, "input"), ({"name": 1}, "input.name"), ({"name": "Ada", "x": 1}, "input"), ([], "input")],
)
def test_an_input_of_the_wrong_shape_is_refused_with_its_field(db: Database, input: object, field: str) -> None:
    (answer,) = submit_all(db, request("greet", input))

    assert isinstance(answer, InvalidInput)
    assert field in {each.field for each in answer.fields}


@pytest.mark.parametrize(
    ("option", "value"),
    [("lane", "fast"), ("priority", 10), ("priority", -1), ("tenant", ""), ("idempotency_key", "")],
)
def test_an_option_that_does_not_fit_is_refused_by_name(db: Database, option: str, value: object) -> None:
    (answer,) = submit_all(db, request(**{option: value}))  # type: ignore[arg-type]

    assert isinstance(answer, InvalidInput)
    assert [field.field for field in answer.fields] == [option]


def test_the_same_key_and_input_give_the_same_run(db: Database) -> None:
    first = submit(db, input={"n": 1}, idempotency_key="k")

    (again,) = submit_all(db, request(input={"n": 1}, idempotency_key="k"))

    assert again == Submitted(first, "queued", is_new=False)


def test_the_same_key_with_another_input_is_a_conflict(db: Database) -> None:
    submit(db, input={"n": 1}, idempotency_key="k")

    by_input, by_agent, by_tenant = submit_all(
        db,
        request(input={"n": 2}, idempotency_key="k"),
        request("other", {"n": 1}, idempotency_key="k"),
        request(input={"n": 2}, idempotency_key="k", tenant="acme"),
    )

    assert isinstance(by_input, Conflict)
    assert isinstance(by_agent, Conflict)
    assert isinstance(by_tenant, Submitted)


def test_one_key_twice_in_one_batch_makes_one_run(db: Database) -> None:
    first, same, other = submit_all(
        db,
        request(input=1, idempotency_key="k"),
        request(input=1, idempotency_key="k"),
        request(input=2, idempotency_key="k"),
    )

    assert isinstance(first, Submitted)
    assert isinstance(same, Submitted)
    assert (first.id, first.is_new, same.is_new) == (same.id, True, False)
    assert isinstance(other, Conflict)


def test_each_run_of_a_batch_has_its_own_answer(db: Database) -> None:
    good, bad, unknown, last = submit_all(db, request(), request("greet", {}), request("nobody"), request())

    assert isinstance(good, Submitted)
    assert isinstance(bad, InvalidInput)
    assert isinstance(unknown, NotFound)
    assert isinstance(last, Submitted)
    assert state_of(db, last.id) == "queued"


def test_a_delayed_run_is_not_claimed_before_its_time(db: Database, worker: str) -> None:
    run_id = submit(db, available_at=2**60)

    assert claim(db, worker) == []
    assert state_of(db, run_id) == "queued"


async def test_concurrent_callers_of_one_process_share_transactions_and_get_their_own_answers(db: Database) -> None:
    submitter = Submitter(db)

    answers = await asyncio.gather(
        *(submitter.submit(request("greet" if n % 5 == 0 else "echo", {"n": n})) for n in range(200)),
        return_exceptions=True,
    )

    assert [isinstance(answer, InvalidInput) for answer in answers] == [n % 5 == 0 for n in range(200)]
    assert len({answer.id for answer in answers if isinstance(answer, Submitted)}) == 160


def test_threads_with_one_key_make_one_run(db: Database) -> None:
    answers: list[object] = []
    barrier = threading.Barrier(8)

    def send() -> None:
        barrier.wait()
        answers.extend(submit_all(db, request(input="x", idempotency_key="k")))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    made = [answer for answer in answers if isinstance(answer, Submitted)]
    assert len(made) == 8
    assert len({answer.id for answer in made}) == 1
    assert sum(answer.is_new for answer in made) == 1


def test_a_text_that_looks_like_sql_or_a_parameter_is_only_a_text(db: Database, worker: str) -> None:
    text = "'; DROP TABLE runs; -- %(id)s :now @rows(id text) \U0001f6a2"

    run_id = submit(db, input={"text": text}, tenant="a'b%s:now")

    (run,) = claim(db, worker)
    assert run.run_id == run_id
    assert text in run_of(db, run_id)["input"]
    assert start_worker(db)
