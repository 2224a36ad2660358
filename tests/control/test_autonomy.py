"""Autonomy on both stores: what counts, what promotes, what demotes, and what the audit says of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import autonomy, calibration
from pilothouse.control.autonomy import LevelChange
from pilothouse.domain.autonomy import Level
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.control.decisions import decide
from tests.control.steps import actions_of, card, register

SUPERVISED, ASSISTED, AUTONOMOUS = Level

INCIDENT = """
INSERT INTO incidents (id, state, severity, effect_id, run_id, tenant, agent, tool, reason, hours, opened_at, opened_by)
VALUES ('i', :state, :severity, 'e', 'r', 'default', 'echo', 'send', 'bad', 24, :at, 'grace')
"""


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    db = open_database(database_url, clock=FrozenClock(1_800_000_000_000_000))
    db.start()
    migrate(db)
    register(db, card("echo"), card("watched", autonomy="supervised"))
    yield db
    db.close()


def later(db: Database, seconds: float = 1.0) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=seconds)


def level(
    db: Database, agent: str = "echo", fingerprint: str = "f", action: str = "send", default: Level = SUPERVISED
) -> Level:
    return db.read_blocking(lambda tx: autonomy.level_of(tx, agent, fingerprint, action, default)).level


def review(db: Database, action: str = "send", default: Level = SUPERVISED) -> bool:
    return db.transaction_blocking(lambda tx: autonomy.review(tx, "echo", "f", action, default=default))


async def promote(db: Database, *, action: str = "send", to: Level | None = None) -> Row:
    later(db)
    return await autonomy.promote(db, LevelChange("echo", action, to), default=SUPERVISED, principal="grace")


def last_record(db: Database, action: str) -> Row:
    return db.read_blocking(
        lambda tx: tx.fetch_all("tail_audit", limit=1, before=None, action=action, tenant=None, entity_id=None)
    )[0]


# --- where levels come from --------------------------------------------------------------------


def test_without_governance_agents_are_assisted_and_those_that_declare_it_supervised(db: Database) -> None:
    assert level(db, default=ASSISTED) == ASSISTED
    assert level(db, "watched", default=ASSISTED) == SUPERVISED
    assert level(db, default=SUPERVISED) == SUPERVISED


async def test_a_new_version_starts_supervised_again(db: Database) -> None:
    decide(db, *["approve"] * 50)
    await promote(db, to=AUTONOMOUS)

    assert level(db) == AUTONOMOUS
    assert level(db, fingerprint="g") == SUPERVISED


# --- promotion ---------------------------------------------------------------------------------


async def test_promotion_without_evidence_says_what_is_missing(db: Database) -> None:
    decide(db, *["approve"] * 9, "edit")

    with pytest.raises(Conflict) as refused:
        await promote(db)

    told = str(refused.value)
    assert "10 of 50 supervised actions are decided" in told
    assert "60.6% or more (9 of 10, 95 % sure), not over 90%" in told
    assert "the calibration error is not measured" in told
    assert level(db) == SUPERVISED


async def test_evidence_and_a_person_promote_and_the_audit_says_by_what(db: Database) -> None:
    decide(db, *["approve"] * 49, "revise")

    shown = await promote(db)

    assert (shown["level"], shown["set_by"], shown["evidence"]["decided"]) == ("assisted", "grace", 50)
    record = last_record(db, "autonomy.promoted")
    assert (record["entity_id"], record["before"], record["after"]) == ("echo", "supervised", "assisted")
    assert "49 of 50 approved without a change, at least 90.9%" in record["reason"]
    assert (await promote(db))["level"] == "autonomous"
    with pytest.raises(Conflict, match="is autonomous already"):
        await promote(db)


@pytest.mark.parametrize("other", ["agent", "action", "fingerprint"])
async def test_what_others_did_is_no_evidence(db: Database, other: str) -> None:
    decide(db, *["approve"] * 50, **{other: "watched"})  # type: ignore[arg-type]  # all three are texts

    with pytest.raises(Conflict, match="0 of 50"):
        await promote(db)


async def test_an_approval_with_edited_arguments_is_no_approval_without_a_change(db: Database) -> None:
    decide(db, *["approve"] * 50, decided_hash="other")

    with pytest.raises(Conflict, match=r"\(0 of 50, 95 % sure\)"):
        await promote(db)


@pytest.mark.parametrize(("state", "severity"), [("open", "critical"), ("closed", "critical"), ("closed", "minor")])
async def test_a_critical_incident_stands_in_the_way(db: Database, state: str, severity: str) -> None:
    """While it is open, and if it came since the decisions count; a minor one does not."""
    decide(db, *["approve"] * 50)
    db.administer(lambda tx: tx.execute(INCIDENT, state=state, severity=severity, at=db.clock.now_us()))

    if severity == "minor":
        await promote(db)
        return
    with pytest.raises(Conflict, match="1 critical incidents"):
        await promote(db)


async def test_poor_calibration_stands_in_the_way(db: Database) -> None:
    decide(db, *["approve"] * 50, confidence=0.6)

    with pytest.raises(Conflict, match=r"calibration error is 40\.0%"):
        await promote(db)


async def test_unknown_agents_and_versions_are_named(db: Database) -> None:
    for asked, told in (
        (LevelChange("ehco", "send"), "did you mean 'echo'"),
        (LevelChange("echo", "send", None, "x"), "no version 'x'"),
    ):
        with pytest.raises(NotFound, match=told):
            await autonomy.promote(db, asked, default=SUPERVISED, principal="grace")


# --- demotion ----------------------------------------------------------------------------------


async def test_two_rejections_demote_at_once_and_the_evidence_begins_anew(db: Database) -> None:
    decide(db, *["approve"] * 50)
    await promote(db, to=AUTONOMOUS)
    later(db)
    decide(db, "reject")
    assert (review(db), level(db)) == (False, AUTONOMOUS)
    later(db)
    decide(db, *["approve"] * 8)
    later(db)
    decide(db, "reject")

    assert (review(db), level(db)) == (True, SUPERVISED)
    record = last_record(db, "autonomy.demoted")
    assert (record["principal"], record["before"], record["after"]) == ("system:autonomy", "autonomous", "supervised")
    assert "2 of its latest 10 decided actions were rejected" in record["reason"]
    assert not review(db)
    with pytest.raises(Conflict, match="0 of 50 supervised"):
        await promote(db)


def test_a_rejection_of_long_ago_does_not_count(db: Database) -> None:
    decide(db, "reject")
    later(db)
    decide(db, *["approve"] * 9)
    later(db)
    decide(db, "reject")

    assert not review(db, default=ASSISTED)


def test_ungoverned_agents_are_demoted_too_and_only_for_the_action(db: Database) -> None:
    decide(db, "reject", "reject")

    assert review(db, default=ASSISTED)
    assert level(db, default=ASSISTED) == SUPERVISED
    assert level(db, action="other", default=ASSISTED) == ASSISTED


async def test_a_person_demotes_an_action_or_all_of_a_version(db: Database) -> None:
    decide(db, *["approve"] * 50)
    await promote(db, to=AUTONOMOUS)
    later(db)

    async def demote(action: str, to: Level) -> None:
        asked = LevelChange("echo", action, to)
        await autonomy.demote(db, asked, reason="odd mails", default=SUPERVISED, principal="grace")

    await demote("send", ASSISTED)
    assert level(db) == ASSISTED
    later(db)
    await demote("*", SUPERVISED)
    assert level(db) == SUPERVISED
    with pytest.raises(Conflict, match="supervised or stricter already"):
        await demote("send", SUPERVISED)
    assert actions_of(db, "echo").count("autonomy.demoted") == 2


async def test_five_low_scores_in_a_row_return_every_action_to_supervised(db: Database) -> None:
    decide(db, *["approve"] * 50)
    await promote(db, to=AUTONOMOUS)
    later(db)

    async def report(*scores: float) -> bool:
        return await autonomy.report_scores(db, "echo", scores, baseline=0.8, default=SUPERVISED, principal="evaluator")

    assert not await report(0.7, 0.7, 0.7, 0.7, 0.9)
    assert level(db) == AUTONOMOUS
    assert await report(0.9, 0.7, 0.7, 0.7, 0.7, 0.7)
    assert level(db) == SUPERVISED
    assert not await report(0.7, 0.7, 0.7, 0.7, 0.7)
    for wrong in ((), (float("nan"),)):
        with pytest.raises(InvalidInput):
            await report(*wrong)


# --- the list, the gate and calibration --------------------------------------------------------


async def test_the_list_shows_each_version_and_action_with_what_is_missing(db: Database) -> None:
    decide(db, *["approve"] * 12)
    decide(db, "approve", fingerprint="old")

    rows = await autonomy.list_autonomy(db, "echo", default=ASSISTED)

    assert [(row["fingerprint"], row["action"], row["level"]) for row in rows] == [
        ("f", "*", "assisted"),
        ("f", "send", "assisted"),
        ("old", "send", "assisted"),
    ]
    assert rows[1]["evidence"]["decided"] == 12
    assert "12 of 50" in rows[1]["missing"][0]
    assert {row["agent"] for row in await autonomy.list_autonomy(db, default=ASSISTED)} == {"echo", "watched"}


def test_the_gate_reads_level_and_calibration_at_once(db: Database) -> None:
    decide(db, *["approve"] * 5, *["reject"] * 20, confidence=0.9)

    found = db.read_blocking(lambda tx: autonomy.facts(tx, "echo", "f", "send", ASSISTED))

    assert found.level == ASSISTED
    assert found.calibration.threshold(0.9) == 1.0
    assert found.calibration.calibrated(0.9) == pytest.approx((5 + 9) / 35)


async def test_only_the_latest_fifty_with_a_confidence_are_looked_at(db: Database) -> None:
    decide(db, *["reject"] * 30)
    later(db)
    decide(db, *["approve"] * 50)
    decide(db, *["reject"] * 30, confidence=None)

    shown = await calibration.show_calibration(db, "echo", threshold=0.9)

    assert (shown["decided"], shown["is_off"], shown["effective_threshold"]) == (50, False, 0.9)
    assert shown["calibration_error"] == pytest.approx(0.05)


async def test_an_error_over_the_limit_is_recorded_told_once_and_restored(db: Database) -> None:
    decide(db, *["approve"] * 50, confidence=0.5)
    for _ in range(2):
        review(db)

    told = [[row["agent"] for row in await calibration.untold(db)] for _ in range(2)]
    later(db)
    decide(db, *["approve"] * 50)
    review(db)

    assert told == [["echo"], []]
    assert [each for each in actions_of(db, "echo") if each.startswith("calibration")] == [
        "calibration.off",
        "calibration.restored",
    ]
    later(db)
    decide(db, *["revise"] * 50)
    review(db)
    assert len(await calibration.untold(db)) == 1
