"""Stability plans on both stores, over seven days of a frozen clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.clock import FrozenClock, new_id
from pilothouse.control import audit, autonomy, limits, recorded, seals, stability, workers
from pilothouse.control.autonomy import LevelChange
from pilothouse.control.calls import StepCalls, ToolCall
from pilothouse.control.stability import Moved, PlanTerms
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.autonomy import Level, Standing
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.control.decisions import decide
from tests.control.steps import actions_of, card, checkpoint, claim, register, submit, version_of, write

pytestmark = pytest.mark.usefixtures("sees_all")

HOUR = 3600.0
DAY = 24 * HOUR
FOR_EVER_US = 10**13


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = open_database(database_url, clock=FrozenClock(1_800_000_000_000_000))
    db.start()
    migrate(db)
    register(db, card("echo"), card("other"))
    yield db
    db.close()


@pytest.fixture
def sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Incidents and runaways are recorded."""
    monkeypatch.setattr(recorded, "INCIDENT", "incident.opened")
    monkeypatch.setattr(recorded, "RUNAWAY", "run.runaway")


@pytest.fixture
def worker(db: Database) -> str:
    """Serves `echo` for as long as the test goes on."""
    return serve(db)


def serve(db: Database, *, lease_us: int = FOR_EVER_US) -> str:
    made = WorkerCard(new_id(), "host", 1, "tests", "0", [version_of("echo")], {})
    db.transaction_blocking(lambda tx: workers.register(tx, made, [], lease_us=lease_us))
    return made.id


def move(db: Database, *, seconds: float) -> list[Moved]:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=seconds)
    return asyncio.run(stability.advance_plans(db))


def start(db: Database, **terms: Any) -> Row:
    wanted = PlanTerms("echo", **({"actions_per_day": 100} | terms))
    return asyncio.run(stability.start_plan(db, wanted, principal="grace"))


def shown(db: Database) -> Row:
    return asyncio.run(stability.show_plan(db, "echo"))


def verdicts(plan: Row) -> dict[str, str]:
    return {finding["criterion"]: finding["verdict"] for finding in plan["findings"]}


def standing(db: Database, fingerprint: str = "f", action: str = "send") -> Standing:
    return db.read_blocking(lambda tx: autonomy.level_of(tx, "echo", fingerprint, action, Level.ASSISTED))


def cap(db: Database) -> Row | None:
    return db.read_blocking(lambda tx: tx.fetch_one("limit_by_key", scope="agent:echo", period="day", unit="actions"))


def amount(db: Database) -> int | None:
    found = cap(db)
    return found["amount"] if found else None


def act(db: Database, worker: str) -> None:
    """One mail, sent by a run."""
    submit(db)
    (run,) = claim(db, worker)
    call = ToolCall("send", "irreversible", "email", "code", "{}", "succeeded", 0, db.clock.now_us(), 1)
    assert write(db, checkpoint(run, "send")._replace(calls=StepCalls(tools=(call,)))) == [None]


def score(db: Database, *scores: float) -> None:
    told = autonomy.report_scores(db, "echo", scores, baseline=0.8, default=Level.ASSISTED, principal="evaluator")
    asyncio.run(told)


def live_well(db: Database, worker: str) -> None:
    """What a good agent leaves: an action, approved memos, scores."""
    act(db, worker)
    decide(db, *["approve"] * 40)
    score(db, 0.9, 0.95)


# --- seven days --------------------------------------------------------------------------------


def test_a_good_agent_goes_through_the_stages_and_passes(db: Database, worker: str) -> None:
    begun = start(db, actions_per_day=80)
    assert (begun["stage"], begun["level"], begun["actions_per_day"]) == (1, "supervised", 40)
    assert (standing(db).level, amount(db)) == (Level.SUPERVISED, 40)
    live_well(db, worker)

    seen: list[tuple[object, ...]] = []
    for _ in range(7):
        seen += [(each.state, each.stage) for each in move(db, seconds=DAY)]
        now = standing(db)
        seen.append((now.level, now.asks_outward, now.least_confidence, amount(db)))

    assert seen == [
        ("supervised", False, None, 40),
        ("running", 2),
        ("assisted", True, None, 40),
        ("assisted", True, None, 40),
        ("running", 3),
        ("autonomous", False, 0.9, 40),
        ("autonomous", False, 0.9, 40),
        ("running", 4),
        ("autonomous", False, None, 80),
        ("passed", 4),
        ("autonomous", False, None, None),
    ]
    plan = shown(db)
    assert set(verdicts(plan).values()) == {"met"}
    assert (plan["state"], plan["reason"], plan["stage_ends_at"]) == ("passed", "every criterion is met", None)
    assert [action for action in actions_of(db, "echo") if action.startswith("stability")] == [
        "stability.started",
        *["stability.stage_entered"] * 3,
        "stability.passed",
    ]
    assert standing(db, "a newer version").level == Level.SUPERVISED


def test_nothing_moves_between_the_stages_and_a_late_scheduler_skips_none(db: Database, worker: str) -> None:
    start(db)
    live_well(db, worker)

    assert move(db, seconds=DAY) == move(db, seconds=DAY - 1) == []
    assert [each.stage for each in move(db, seconds=30 * DAY)] == [2]
    assert move(db, seconds=2 * DAY - 1) == []
    assert [each.stage for each in move(db, seconds=1)] == [3]


def test_days_can_be_scaled(db: Database, worker: str) -> None:
    start(db, days_scale=1 / 86_400, target_level=Level.ASSISTED)
    live_well(db, worker)

    moved = [each for _ in range(8) for each in move(db, seconds=1)]

    assert [(each.state, each.stage) for each in moved] == [
        ("running", 2),
        ("running", 3),
        ("running", 4),
        ("passed", 4),
    ]
    assert standing(db).level == Level.ASSISTED


def test_without_data_a_plan_does_not_pass(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "INCIDENT", None)
    monkeypatch.setattr(recorded, "RUNAWAY", None)
    start(db)

    for _ in range(7):
        move(db, seconds=DAY)

    plan = shown(db)
    assert plan["state"] == "unproven"
    assert {name for name, verdict in verdicts(plan).items() if verdict == "not measured"} == {
        "no critical incident",
        "no runaway",
        "no unplanned downtime",
        "every action has its audit trail",
        "quality above the baseline",
        "calibration within 10%",
        "over 90% of memos approved at first submission",
    }
    assert "nobody reported scores" in plan["reason"]
    assert (standing(db).level, cap(db)) == (Level.SUPERVISED, None)


# --- what fails it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "criterion"),
    [("incident.opened", "no critical incident"), ("run.runaway", "no runaway")],
)
def test_an_incident_or_a_runaway_fails_it_within_the_hour(
    db: Database, worker: str, action: str, criterion: str
) -> None:
    run_id = submit(db)

    def tell(agent_or_run: str) -> None:
        entry = audit.entry(action, "run", agent_or_run, principal="test")
        db.transaction_blocking(lambda tx: audit.record(tx, [entry]))

    tell(run_id)
    start(db)
    tell(submit(db, "other"))
    assert move(db, seconds=HOUR) == []
    tell(run_id)

    (moved,) = move(db, seconds=HOUR)

    assert (moved.state, verdicts(shown(db))[criterion]) == ("failed", "missed")
    assert standing(db).level == Level.SUPERVISED
    assert cap(db) is None
    assert move(db, seconds=DAY) == []


def test_an_action_without_its_audit_record_fails_it(db: Database, worker: str) -> None:
    start(db)
    act(db, worker)
    assert move(db, seconds=HOUR) == []
    db.administer(lambda tx: tx.execute("DELETE FROM audit WHERE action = 'run.claimed'"))

    (moved,) = move(db, seconds=HOUR)

    assert moved.reason == "every action has its audit trail: 1 of 1 without one, 0 seals broken"


def test_an_effect_of_which_nothing_tells_fails_it(db: Database, worker: str) -> None:
    start(db)
    effect = (
        "INSERT INTO effects (id, run_id, key, attempt, tenant, agent, tool, effect, arguments_hash, state, tries, "
        "intended_at) VALUES ('e', 'r', 'k', 1, 'default', 'echo', 'send', 'write', 'h', 'succeeded', 1, :at)"
    )
    db.administer(lambda tx: tx.execute(effect, at=db.clock.now_us()))

    assert [each.state for each in move(db, seconds=HOUR)] == ["failed"]


def test_a_broken_seal_fails_it_on_the_last_day(db: Database, worker: str) -> None:
    start(db)
    live_well(db, worker)
    for _ in range(6):
        move(db, seconds=DAY)
    last = db.read_blocking(audit.end_in)
    db.transaction_blocking(lambda tx: seals.seal_batch(tx, up_to=last))
    db.administer(lambda tx: tx.execute("UPDATE audit SET principal = 'nobody' WHERE action = 'stability.started'"))

    assert [each.state for each in move(db, seconds=HOUR)] == ["failed"]


def test_a_lost_worker_that_nobody_replaces_is_downtime(db: Database) -> None:
    serve(db, lease_us=15_000_000)
    start(db)
    assert move(db, seconds=50) == []
    serve(db)

    assert move(db, seconds=HOUR) == []  # fifty seconds are tolerated

    db.administer(lambda tx: tx.execute("UPDATE workers SET lease_until = renewed_at"))
    (moved,) = move(db, seconds=HOUR)
    assert moved.reason == "no unplanned downtime: longest time without a worker that was lost: 7200 s"


def test_poor_memos_fail_it_at_its_end_and_second_submissions_do_not_help(db: Database, worker: str) -> None:
    start(db)
    live_well(db, worker)
    for number in range(5):
        decide(db, "revise", run_id=f"r{number}", confidence=None)
        decide(db, "approve", run_id=f"r{number}", confidence=None, round=2)

    moved = [each for _ in range(7) for each in move(db, seconds=DAY)]

    assert (moved[-1].state, moved[-1].stage) == ("failed", 4)
    assert moved[-1].reason == "over 90% of memos approved at first submission: 40 of 45, 88.9%"


def test_a_changed_version_and_a_demoted_one_end_it(db: Database, worker: str) -> None:
    start(db)
    register(db, card("echo", fingerprint="g"))
    (moved,) = move(db, seconds=HOUR)
    assert "the agent's code has changed" in moved.reason

    start(db)
    move(db, seconds=60)
    asked = LevelChange("echo", "*", Level.SUPERVISED)
    move(db, seconds=2 * DAY)
    asyncio.run(autonomy.demote(db, asked, reason="odd mails", default=Level.ASSISTED, principal="grace"))
    (moved,) = move(db, seconds=HOUR)
    assert "the version was demoted: odd mails" in moved.reason


def test_an_action_that_was_demoted_meanwhile_stays_supervised(db: Database, worker: str) -> None:
    start(db)
    live_well(db, worker)
    move(db, seconds=2 * DAY)
    decide(db, "reject", "reject", action="pay")
    db.transaction_blocking(lambda tx: autonomy.review(tx, "echo", "f", "pay", default=Level.ASSISTED))

    assert standing(db, action="pay").level == Level.SUPERVISED
    for _ in range(3):
        move(db, seconds=2 * DAY)
    assert shown(db)["state"] == "passed"
    assert (standing(db, action="pay").level, standing(db).level) == (Level.SUPERVISED, Level.AUTONOMOUS)


# --- what people do ----------------------------------------------------------------------------


def test_stopping_restores_levels_and_cap(db: Database) -> None:
    decide(db, *["approve"] * 50)
    asyncio.run(autonomy.promote(db, LevelChange("echo", "send"), default=Level.SUPERVISED, principal="grace"))
    set_limit(db, 7)
    move(db, seconds=1)
    start(db)
    assert (standing(db).level, amount(db)) == (Level.SUPERVISED, 50)

    stopped = asyncio.run(stability.stop_plan(db, "echo", reason="not now", principal="grace"))

    assert (stopped["state"], stopped["reason"]) == ("stopped", "not now")
    assert standing(db).level == Level.ASSISTED
    restored = cap(db) or {}
    assert (restored["amount"], restored["source"], restored["set_by"]) == (7, "operator", "ada")
    with pytest.raises(NotFound, match="no stability plan of agent 'echo' is under way"):
        asyncio.run(stability.stop_plan(db, "echo", principal="grace"))


def set_limit(db: Database, amount: int) -> None:
    limit = Limit("agent:echo", Period.DAY, Unit.ACTIONS, amount)
    asyncio.run(limits.set_limit(db, limit, principal="ada"))


def test_a_cap_that_somebody_else_has_set_meanwhile_stays(db: Database) -> None:
    start(db)
    set_limit(db, 3)

    asyncio.run(stability.stop_plan(db, "echo", principal="grace"))

    assert amount(db) == 3


def test_an_agent_has_one_plan_at_a_time_and_no_promotion_beside_it(db: Database) -> None:
    start(db)
    decide(db, *["approve"] * 50)
    move(db, seconds=1)

    with pytest.raises(Conflict, match="is under way in stage 1"):
        start(db)
    with pytest.raises(Conflict, match="a stability plan sets the levels"):
        asyncio.run(autonomy.promote(db, LevelChange("echo", "send"), default=Level.ASSISTED, principal="grace"))


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"days_scale": 0.0}, "days_scale is 0"),
        ({"days_scale": float("nan")}, "days_scale is nan"),
        ({"actions_per_day": 0}, "actions_per_day is 0"),
        ({"target_level": Level.SUPERVISED}, "target_level is supervised"),
    ],
)
def test_terms_that_cannot_be_are_refused(db: Database, terms: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        start(db, **terms)


def test_an_agent_without_a_plan_says_how_to_begin_one(db: Database) -> None:
    with pytest.raises(NotFound, match="`pilothouse stability start echo` begins one"):
        shown(db)


def test_two_schedulers_at_once_move_a_plan_once(db: Database, worker: str) -> None:
    start(db)
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=2 * DAY)

    async def both() -> list[Moved]:
        found = await asyncio.gather(*(stability.advance_plans(db) for _ in range(4)))
        return [each for moved in found for each in moved]

    assert [each.stage for each in asyncio.run(both())] == [2]
