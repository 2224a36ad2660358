"""The waterfall of a run: every microsecond is somewhere, once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.gaps import Facts
from pilothouse.domain.waterfall import Span, Waterfall, waterfall

RUN = {"id": "r", "created_at": 0, "finished_at": None, "available_at": None, "state": "running"}


def attempt(number: int, start: int, end: int | None, state: str, error: Any = None) -> dict[str, Any]:
    return {
        "number": number,
        "worker_id": "w",
        "state": state,
        "started_at": start,
        "finished_at": end,
        "error": error,
    }


def step(key: str, start: int, end: int, *, kind: str = "step", number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"key": key, "attempt": number, "kind": kind, "state": "succeeded", "error": None, "tries": 1, "result": None}
    return row | {"started_at": start, "finished_at": end} | changes


def model_call(key: str, start: int, took: int, *, number: int = 1, cost: int = 0, **changes: Any) -> dict[str, Any]:
    row = {"key": key, "attempt": number, "number": 1, "model": "m", "outcome": "answered", "reason": None}
    tokens = {"input_tokens": 10, "cache_read_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5}
    rest = {"reasoning_tokens": 0, "cost_microusd": cost, "started_at": start, "latency_us": took}
    return row | tokens | rest | changes


def tool_call(key: str, start: int, took: int, *, number: int = 1, cost: int = 0) -> dict[str, Any]:
    row = {"key": key, "attempt": number, "tool": "look", "effect": "read", "outcome": "succeeded"}
    return row | {"cost_microusd": cost, "started_at": start, "latency_us": took}


def ended(at: int, state: str = "succeeded") -> dict[str, Any]:
    return RUN | {"finished_at": at, "state": state}


def shown(found: Waterfall) -> list[tuple[str, str, int, int | None, int]]:
    return [(span.kind, span.name, span.started_at, span.ended_at, span.depth) for span in found.spans]


def one(found: Waterfall, kind: str) -> Span:
    (span,) = [span for span in found.spans if span.kind == kind]
    return span


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        ("global/2026-11-30/microusd@7", "room for dollars of global on 2026-11-30"),
        ("run:x/run/calls@7", "room for calls of run:x"),
        ("agent:a/b/2026-11/tokens@7", "room for tokens of agent:a/b on 2026-11"),
    ],
)
def test_a_wait_for_room_under_a_limit_is_told_in_words(wait: str, told: str) -> None:
    waits = [{"kind": "limit", "name": wait}]
    found = waterfall(Facts(RUN | {"state": "waiting"}, 70, [attempt(1, 0, 10, "suspended")], waits=waits))

    assert one(found, "wait").name == told


def test_a_plain_run_waits_in_the_queue_then_works() -> None:
    facts = Facts(
        ended(100), 500, attempts=[attempt(1, 10, 100, "succeeded")], steps=[step("a", 20, 50), step("b", 60, 70)]
    )

    found = waterfall(facts)

    assert shown(found) == [
        ("queue", "queue", 0, 10, 0),
        ("attempt", "attempt 1", 10, 100, 0),
        ("step", "a", 20, 50, 1),
        ("step", "b", 60, 70, 1),
    ]
    assert found.where_time_went == {"queue": 10, "step": 40, "code": 50}


def test_steps_side_by_side_count_once_and_a_model_before_a_step() -> None:
    facts = Facts(
        ended(100),
        500,
        attempts=[attempt(1, 0, 100, "succeeded")],
        steps=[step("a", 0, 80), step("draft", 40, 60, kind="model"), step("b", 10, 80)],
        model_calls=[model_call("draft", 41, 18, cost=7)],
    )

    found = waterfall(facts)

    assert found.where_time_went == {"model": 20, "step": 60, "code": 20}
    assert one(found, "model").cost_microusd == 7
    assert one(found, "attempt").cost_microusd == 7


def test_a_second_model_is_shown_below_the_question_and_its_cost_counts_once() -> None:
    calls = [
        model_call("draft", 5, 10, outcome="failed", reason="timeout", cost=2),
        model_call("draft", 20, 10, model="n", cost=3),
    ]
    steps = [step("draft", 4, 31, kind="model")]

    found = waterfall(Facts(ended(40), 40, [attempt(1, 0, 40, "succeeded")], steps, calls))

    question, *below = [span for span in found.spans if span.kind == "model"]
    assert (question.cost_microusd, question.tokens, question.detail) == (5, 30, "n")
    assert [(span.name, span.state, span.detail, span.depth) for span in below] == [
        ("m", "failed", "timeout", 2),
        ("n", "answered", "", 2),
    ]
    assert found.cost["microusd"] == 5


def test_what_a_model_called_is_below_its_question() -> None:
    facts = Facts(
        ended(40),
        40,
        [attempt(1, 0, 40, "succeeded")],
        [step("draft", 1, 9, kind="model"), step("draft/1.look", 10, 20, kind="tool")],
        [model_call("draft", 1, 8)],
        [tool_call("draft/1.look", 10, 10, cost=4)],
    )

    found = waterfall(facts)

    assert [(span.kind, span.depth) for span in found.spans] == [("attempt", 0), ("model", 1), ("tool", 2)]
    assert one(found, "model").cost_microusd == 4


def test_calls_of_a_step_that_was_tried_again_stay_with_their_attempt() -> None:
    facts = Facts(
        ended(100),
        100,
        [attempt(1, 0, 30, "failed", {"type": "ValueError", "message": "no"}), attempt(2, 60, 100, "succeeded")],
        [step("draft", 65, 90, kind="model", number=2, tries=2)],
        [model_call("draft", 5, 20, outcome="failed", reason="timeout"), model_call("draft", 70, 10, number=2)],
    )

    found = waterfall(facts)

    assert [(span.kind, span.attempt, span.state) for span in found.spans] == [
        ("attempt", 1, "failed"),
        ("model", 1, "failed"),
        ("wait", None, "ended"),
        ("attempt", 2, "succeeded"),
        ("model", 2, "succeeded"),
    ]
    assert found.spans[0].detail == "ValueError: no"
    assert found.where_time_went == {"backoff": 30, "model": 45, "code": 25}


def test_a_signal_ends_its_wait_and_the_rest_is_the_queue() -> None:
    facts = Facts(
        ended(100),
        100,
        [attempt(1, 0, 10, "suspended"), attempt(2, 60, 100, "succeeded")],
        signals=[{"name": "paid", "created_at": 50}],
    )

    found = waterfall(facts)

    assert shown(found)[1:3] == [("wait", "signal paid", 10, 50, 0), ("queue", "queue", 50, 60, 0)]


def test_an_approval_says_who_is_waited_for_while_it_is_pending() -> None:
    row = {"id": "a", "key": "k", "title": "refund", "state": "pending", "requested_at": 9, "decided_at": None}
    other = row | {"id": "b", "title": "mail"}
    run = RUN | {"state": "waiting"}

    found = waterfall(Facts(run, 70, [attempt(1, 0, 10, "suspended")], approvals=[row, other]))

    assert shown(found)[1:] == [("approval", "refund", 10, None, 0), ("approval", "mail", 9, None, 1)]
    assert found.where_time_went == {"people": 60, "code": 10}


def test_a_run_that_is_not_due_waits_for_its_time_and_then_for_a_worker() -> None:
    early, late = RUN | {"state": "queued", "available_at": 100}, RUN | {"state": "queued", "available_at": 40}

    assert shown(waterfall(Facts(early, 70))) == [("wait", "not due yet", 0, None, 0)]
    assert waterfall(Facts(late, 70)).where_time_went == {"queue": 30, "timer": 40}


def test_a_redrive_ends_the_wait_for_people_after_a_failure() -> None:
    attempts = [attempt(1, 0, 10, "failed"), attempt(2, 60, 100, "succeeded")]
    notes = [{"at": 55, "action": "run.redriven", "reason": None, "attempt": None}]

    assert waterfall(Facts(ended(100), 100, attempts, notes=notes)).where_time_went == {
        "queue": 5,
        "people": 45,
        "code": 50,
    }


@pytest.mark.parametrize(
    ("action", "reason", "kind", "part"),
    [
        ("run.released", "its worker was stopped", "queue", "queue"),
        ("run.released", "given back for switch agent:a (abort), tripped by cli:ada: wrong", "wait", "hold"),
        ("run.snoozed", "the mailbox is empty", "wait", "timer"),
    ],
)
def test_what_follows_an_attempt_that_was_put_back_is_told_by_why(
    action: str, reason: str, kind: str, part: str
) -> None:
    attempts = [attempt(1, 0, 10, "suspended"), attempt(2, 60, 100, "succeeded")]
    notes = [{"at": 10, "action": action, "reason": reason, "attempt": 1}]
    signals = [{"name": "paid", "created_at": 50}]

    found = waterfall(Facts(ended(100), 100, attempts, signals=signals, notes=notes))

    (gap,) = [span for span in found.spans if (span.started_at, span.ended_at) == (10, 60)]
    assert (gap.kind, reason in (gap.name, gap.detail)) == (kind, True)
    assert found.where_time_went == {part: 50, "code": 50}


def test_an_effect_of_an_ended_attempt_is_unknown_and_has_no_end() -> None:
    effect = {
        "id": "e", "key": "pay", "attempt": 1, "tool": "wire", "effect": "irreversible", "state": "intended",
        "intended_at": 5, "finished_at": None, "is_under_way": 0,
    }  # fmt: skip

    found = waterfall(Facts(RUN | {"state": "waiting"}, 70, [attempt(1, 0, 10, "lost")], effects=[effect]))

    assert (one(found, "effect").state, one(found, "effect").id, one(found, "tool").detail) == ("unknown", "e", "wire")


@st.composite
def histories(draw: st.DrawFn) -> Facts:
    """Runs with any attempts, steps and events, whose clocks may differ a little."""
    at = 0
    attempts: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    endings = ("failed", "suspended", "lost", "succeeded", "cancelled")
    for number in range(1, draw(st.integers(0, 4)) + 1):
        start = at + draw(st.integers(0, 50))
        at = start + draw(st.integers(0, 50))
        attempts.append(attempt(number, start, at, draw(st.sampled_from(endings))))
        for place in range(draw(st.integers(0, 3))):
            begun = start + draw(st.integers(-5, 60))
            kind = draw(st.sampled_from(("step", "model", "timer", "signal", "intent")))
            took = draw(st.integers(0, 30))
            result = draw(st.integers(0, 200)) if kind == "timer" else None
            steps.append(step(f"{number}.{place}", begun, begun + took, kind=kind, number=number, result=result))
            if kind == "model":
                calls.append(model_call(f"{number}.{place}", begun, took, number=number, cost=draw(st.integers(0, 9))))
    is_open, is_running = draw(st.booleans()), draw(st.booleans())
    if is_open and is_running and attempts:
        attempts[-1] |= {"state": "running", "finished_at": None}
        run = RUN
    elif is_open:
        due = draw(st.none() | st.integers(0, 400))
        run = RUN | {"state": draw(st.sampled_from(("queued", "waiting"))), "available_at": due}
    else:
        run = ended(at + draw(st.integers(0, 20)), draw(st.sampled_from(("succeeded", "failed", "cancelled"))))
    signals = [{"name": "s", "created_at": moment} for moment in draw(st.lists(st.integers(0, 300), max_size=3))]
    waits = [{"kind": "signal", "name": "s"}] * draw(st.integers(0, 1))
    return Facts(run, at + draw(st.integers(0, 100)), attempts, steps, calls, signals=signals, waits=waits)


@given(histories())
def test_every_microsecond_is_in_one_part_and_the_spans_of_depth_0_follow_each_other(facts: Facts) -> None:
    found = waterfall(facts)

    end = facts.run["finished_at"] if facts.has_ended else facts.now
    tops = [span for span in found.spans if span.depth == 0 and span.started_at != span.ended_at]
    assert found.total_us == sum(found.where_time_went.values()) == end
    assert all(one.ended_at == other.started_at for one, other in pairwise(tops))
    assert not tops or (tops[0].started_at == 0 and tops[-1].ended_at in (None, end))
    assert all(us > 0 for us in found.where_time_went.values())


@given(histories())
def test_spans_are_below_their_parents_and_hold_their_cost(facts: Facts) -> None:
    spans = waterfall(facts).spans

    for place, span in enumerate(spans):
        assert (span.parent is None) == (span.depth == 0)
        if span.parent is not None:
            assert span.parent < place
            assert spans[span.parent].depth == span.depth - 1
    assert sum(span.cost_microusd for span in spans if span.depth == 0) == sum(
        call["cost_microusd"] for call in facts.model_calls
    )
