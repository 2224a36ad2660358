"""Alerts on both stores: what the rules measure, how episodes go, and what is queued to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from pilothouse.clock import FrozenClock
from pilothouse.control import alert_notices, alerts, asking, autonomy, checks, history, switches, workers
from pilothouse.control.alert_notices import Delivery
from pilothouse.control.alert_readings import Scene, readings
from pilothouse.control.alerting import Alerting, look_around
from pilothouse.control.alerts import AlertFilter, SilenceOrder
from pilothouse.control.effects import Intent
from pilothouse.control.effects import write as write_effects
from pilothouse.control.switches import TripOrder
from pilothouse.control.workers import WorkerCard
from pilothouse.domain.alert_rules import RULES, rules_with
from pilothouse.domain.alerts import AlertChange, Matcher, Reading, Severity
from pilothouse.domain.anomalies import BLOCK_SECONDS
from pilothouse.domain.autonomy import Level
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import Unit
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction, open_database
from pilothouse.store.migrations import migrate
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import AlertFired, AlertResolved, Emitter
from tests.control.money import hold_for, limit_to, reserve
from tests.control.steps import actions_of, card, claim, ended, reap, register, settle, start_worker, submit
from tests.control.test_approvals import asks

T = TypeVar("T")

START_US = 1_800_000_000_000_000
HOOK, MAIL = "webhook:http://hook.example/x?key=secret", "email:ops@example.com"
OWN = asking.NOTIFY_AGENT
QUIET: dict[str, AlertChange] = {
    name: AlertChange(enabled=False) for name in ("disk-low", "database-slow", "clock-skew", "audit-seal-late")
}
"""What the machine that tests run on would add."""


def wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """With a clock that stands still."""
    db = open_database(database_url, clock=FrozenClock(START_US))
    db.start()
    migrate(db)
    register(db, card("echo"), card("other"), card(asking.NOTIFY_AGENT))
    yield db
    assert not [v for v in wait(checks.check(db, grace_us=10**15)) if not v.holds]
    db.close()


class Watch:
    """The chore, turn by turn."""

    def __init__(self, db: Database, changes: Mapping[str, AlertChange] | None = None, **delivery: Any) -> None:
        self.db = db
        self.events: list[Event] = []
        rules = rules_with({**QUIET, **(changes or {})})
        told = Delivery(**{"channels": (), **delivery})
        self.alerting = Alerting(db, rules, UTC_CALENDAR, told, Emitter([self.events.append]), keep_us=10**12)

    def __call__(self, seconds: float = 0.0) -> dict[str, Row]:
        """One turn, later; the live alerts by rule and subject."""
        later(self.db, seconds)
        wait(self.alerting.evaluate())
        return {f"{row['rule']} {row['subject']}": row for row in wait(alerts.live_alerts(self.db))}

    def over(self, seconds: float, *, step: float = 10.0) -> dict[str, Row]:
        """Turns one after the other."""
        found = {}
        for _ in range(int(seconds / step)):
            found = self(step)
        return found


def later(db: Database, seconds: float) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=seconds)


def measured(db: Database, rule: str) -> dict[str, Reading]:
    """What a rule measures now, by subject."""

    async def work() -> list[Reading]:
        scene: Scene = await look_around(db, UTC_CALENDAR)
        return await db.read(lambda tx: readings(tx, scene))

    return {each.subject: each for each in wait(work()) if each.rule == rule}


def messages(db: Database) -> list[Row]:
    """The runs of the notifying agent, oldest first."""
    sql = "SELECT id, input FROM runs WHERE agent = 'pilothouse.notify' ORDER BY id"
    return db.examine(lambda tx: tx.fetch_all(sql))


def told(db: Database) -> list[list[tuple[str, str]]]:
    """What each message tells: (event, rule); not that the messages themselves wait, because nobody sends them here."""
    sql = "SELECT message FROM alert_notices WHERE message IS NOT NULL GROUP BY message ORDER BY message"
    found = db.examine(lambda tx: tx.fetch_all(sql))
    rows = [wait(alert_notices.notices_of(db, row["message"])) for row in found]
    shown = [[(each["notice"], each["rule"]) for each in message if each["agent"] != OWN] for message in rows]
    return [message for message in shown if message]


def count(db: Database, **changes: int) -> None:
    """Adds to counters of echo, by `name__label`."""
    pairs = [(name.split("__"), value) for name, value in changes.items()]
    rows = [
        {"name": name, "agent": "echo", "lane": "normal", "label": label.replace("_", "/"), "shard": 0, "value": value}
        for (name, label), value in pairs
    ]
    db.transaction_blocking(lambda tx: tx.send_many("add_counters", rows))


def sample(db: Database, seconds: float = 15.0) -> None:
    later(db, seconds)
    wait(history.sample(db))


# --- how episodes go ---------------------------------------------------------------------------


def test_an_old_queue_is_pending_then_fires_and_is_resolved_with_one_record_each(db: Database) -> None:
    watch = Watch(db)
    worker = start_worker(db, lease_us=10**15)
    run_id = submit(db)
    key = "queue-age agent:echo/lane:normal"
    assert watch(200.0) == {}

    pending = watch(101.0)[key]
    assert (pending["state"], pending["severity"], pending["threshold"]) == ("pending", "warning", 300.0)
    assert not watch.events
    firing = watch.over(60)[key]

    assert firing["state"] == "firing"
    assert firing["fired_at"] - firing["since"] == 60_000_000
    assert "the oldest due run of echo in lane normal has waited 361 s" in firing["text"]
    assert "`pilothouse runs list --agent echo --state queued`" in firing["text"]
    settle(db, *(ended(run) for run in claim(db, worker) if run.run_id == run_id))
    assert watch.over(290)[key]["state"] == "firing", "it must be clear for five minutes"
    assert watch.over(10) == {}
    shown = wait(alerts.show_alert(db, firing["id"]))
    assert (shown["state"], shown["value"]) == ("resolved", 361.0)
    assert actions_of(db, firing["id"]) == ["alert.fired", "alert.resolved"]
    assert [(type(each), each.rule) for each in watch.events if isinstance(each, AlertFired | AlertResolved)] == [
        (AlertFired, "queue-age"),
        (AlertResolved, "queue-age"),
    ]


def test_a_condition_that_comes_back_is_one_episode_while_it_is_kept(db: Database) -> None:
    watch = Watch(db, {"queue-age": AlertChange(for_seconds=0)})
    worker = start_worker(db, lease_us=10**15)
    ids = set()
    for _ in range(3):
        submit(db)
        ids |= {row["id"] for row in watch(301).values()}
        settle(db, *(ended(run) for run in claim(db, worker)))
        ids |= {row["id"] for row in watch.over(100).values()}

    assert len(ids) == 1


def test_a_rule_that_is_switched_off_ends_what_it_has_begun(db: Database) -> None:
    submit(db)
    assert Watch(db, {"queue-age": AlertChange(for_seconds=0)})(400)

    assert Watch(db, {"queue-age": AlertChange(enabled=False)})() == {}


def test_two_who_evaluate_at_once_make_one_episode(db: Database) -> None:
    submit(db)
    first, second = (Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK,)) for _ in range(2))
    later(db, 400)

    async def both() -> None:
        await asyncio.gather(first.alerting.evaluate(), second.alerting.evaluate())

    wait(both())

    rows = wait(alerts.list_alerts(db, AlertFilter(rule="queue-age")))
    assert len(rows) == 1
    assert actions_of(db, rows[0]["id"]) == ["alert.fired"]
    assert len(messages(db)) == 1


def test_what_is_over_is_pruned_in_time(db: Database) -> None:
    watch = Watch(db, {"queue-age": AlertChange(for_seconds=0)})
    worker = start_worker(db, lease_us=10**15)
    submit(db)
    watch(400)
    settle(db, *(ended(run) for run in claim(db, worker)))
    watch.over(310)
    assert len(wait(alerts.list_alerts(db, AlertFilter(state="resolved")))) == 1

    watch(1_000_100)

    assert wait(alerts.list_alerts(db, AlertFilter())) == []


# --- who is told -------------------------------------------------------------------------------


def test_the_start_and_the_end_are_told_once_on_each_channel(db: Database) -> None:
    watch = Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK, MAIL))
    worker = start_worker(db, lease_us=10**15)
    submit(db)
    watch(400)
    watch.over(100)
    assert told(db) == [[("firing", "queue-age")]] * 2
    settle(db, *(ended(run) for run in claim(db, worker)))

    watch.over(400)

    assert sorted(told(db)) == [[("firing", "queue-age")]] * 2 + [[("resolved", "queue-age")]] * 2
    (row,) = wait(alerts.list_alerts(db, AlertFilter(rule="queue-age", agent="echo")))
    shown = wait(alerts.show_alert(db, row["id"]))
    assert "secret" not in str(shown), "the address of a webhook may hold a key"
    assert {each["recipient"] for each in shown["notices"]} >= {"email:ops@example.com"}


def test_what_is_less_grave_than_wanted_is_told_to_nobody(db: Database) -> None:
    submit(db)

    Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK,), least=Severity.CRITICAL)(400)

    assert messages(db) == []


def test_what_is_too_much_comes_in_one_digest_and_waits_for_room(db: Database) -> None:
    rules = {"worker-silent": AlertChange(enabled=True)}
    watch = Watch(db, rules, channels=(HOOK,), limit=3)
    for _ in range(8):
        reap(db, start_worker(db))

    watch()

    assert [len(each) for each in told(db)] == [1, 1, 6]
    for _ in range(2):
        reap(db, start_worker(db))
    watch(10)
    assert len(messages(db)) == 3, "there is no room for ten minutes"
    watch.over(600)
    assert [len(each) for each in told(db)] == [1, 1, 6, 1, 1]


def test_nothing_is_lost_while_no_worker_takes_messages(db: Database) -> None:
    db.administer(lambda tx: tx.execute(FORGET))
    watch = Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK,))
    submit(db)
    watch(400)
    assert messages(db) == []
    register(db, card(asking.NOTIFY_AGENT))

    watch(10)

    assert told(db) == [[("firing", "queue-age")]]


FORGET = "DELETE FROM agents WHERE name = 'pilothouse.notify'"


def test_a_silence_keeps_messages_back_and_what_still_fires_at_its_end_is_told(db: Database) -> None:
    watch = Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK,))
    order = SilenceOrder(Matcher("queue-*", "agent:ec*", "echo"), 10, "we know")
    made = wait(alerts.silence(db, order, principal="test"))
    submit(db)

    (row,) = watch(400).values()

    assert (row["state"], row["is_silenced"], messages(db)) == ("firing", True, [])
    watch.over(200)
    assert told(db) == [[("firing", "queue-age")]]
    assert wait(alerts.list_silences(db)) == []
    with pytest.raises(Conflict, match="has ended already"):
        wait(alerts.unsilence(db, made["id"], principal="test"))


def test_a_silence_can_be_ended_and_is_in_the_audit(db: Database) -> None:
    made = wait(alerts.silence(db, SilenceOrder(Matcher(), 60, "deploy"), principal="test"))

    ended_one = wait(alerts.unsilence(db, made["id"], principal="test"))

    assert ended_one["ended_by"] == "test"
    assert actions_of(db, made["id"]) == ["alert.silenced", "alert.unsilenced"]


SENSELESS = (
    (SilenceOrder(Matcher("queue-agee"), 1, "x"), "matches no rule"),
    (SilenceOrder(Matcher(), 0, "x"), "minutes is 0"),
    (SilenceOrder(Matcher(), 1e9, "x"), "at most 43200"),
    (SilenceOrder(Matcher(), 1, " "), "reason is empty"),
)


def test_a_silence_that_makes_no_sense_is_refused(db: Database) -> None:
    for order, problem in SENSELESS:
        with pytest.raises(InvalidInput, match=problem):
            wait(alerts.silence(db, order, principal="test"))


def test_who_acknowledges_an_alert_first_is_told_of_its_start_no_more(db: Database) -> None:
    submit(db)
    (row,) = Watch(db, {"queue-age": AlertChange(for_seconds=0)})(400).values()
    shown = wait(alerts.acknowledge(db, row["id"], principal="cli:ada", reason="on it"))
    assert (shown["acknowledged_by"], shown["audit"][-1]["reason"]) == ("cli:ada", "on it")

    Watch(db, {"queue-age": AlertChange(for_seconds=0)}, channels=(HOOK,))(10)

    assert messages(db) == []
    with pytest.raises(Conflict, match="acknowledged already, by cli:ada"):
        wait(alerts.acknowledge(db, row["id"], principal="cli:ada"))
    with pytest.raises(NotFound, match="there is no alert nobody"):
        wait(alerts.acknowledge(db, "nobody", principal="cli:ada"))


def test_the_overview_counts_what_fires_and_names_the_gravest(db: Database) -> None:
    submit(db)
    reap(db, start_worker(db))
    Watch(db, {"queue-age": AlertChange(for_seconds=0)})(400)

    found = wait(db.read(lambda tx: alerts.overview_in(tx, top=1)))

    assert found["firing"] == {"critical": 1, "warning": 1, "info": 0}
    assert [each["rule"] for each in found["top"]] == ["worker-silent"]


# --- what is measured --------------------------------------------------------------------------


def test_every_rule_is_measured_or_waits_for_something_to_measure(db: Database) -> None:
    found = wait(alerts.standings(db, RULES, UTC_CALENDAR))

    assert [row["rule"] for row in found] == [rule.name for rule in RULES]
    assert {row["state"] for row in found} <= {"well", "pending", "firing"}


def test_a_deep_queue_comes_with_advice_only_while_a_run_is_due(db: Database) -> None:
    for _ in range(120):
        submit(db, available_at=START_US + 60_000_000)
    subject = "agent:echo/lane:normal"
    assert measured(db, "queue-depth")[subject].value == 0

    later(db, 61)

    assert measured(db, "queue-depth")[subject].value == 120
    assert "120 queued runs of echo in lane normal: watch it" in measured(db, "queue-depth")[subject].text


def test_slots_that_are_taken_are_a_share_of_all(db: Database) -> None:
    card_ = WorkerCard("w", "host", 1, "tests", "0", [], {"normal": 8, "shared": 2})
    db.transaction_blocking(lambda tx: workers.register(tx, card_, [], lease_us=10**12))
    for _ in range(9):
        submit(db)
    claim(db, "w")

    reading = measured(db, "slots-used")["workers"]

    assert reading.value == 0.9
    assert "9 of 10 slots are taken, 90 %" in reading.text.replace("90%", "90 %")


def test_failures_are_judged_by_a_bound_and_not_by_a_few_runs(db: Database) -> None:
    worker = start_worker(db, lease_us=10**15)
    sample(db)

    def end(failing: int, succeeding: int) -> None:
        for _ in range(failing + succeeding):
            submit(db)
        runs = claim(db, worker)
        settle(db, *(ended(run, "fatal" if place < failing else "succeeded") for place, run in enumerate(runs)))
        sample(db)

    end(2, 1)
    few = measured(db, "failure-rate")["agent:echo"]
    assert few.value < 0.2, "two of three prove nothing"
    end(18, 9)

    many = measured(db, "failure-rate")["agent:echo"]
    assert 0.4 < many.value < 2 / 3
    assert "20 of 30 runs of echo failed in the last 15 min" in many.text
    assert measured(db, "dead-letters-growing")["agent:echo"].value == 20
    later(db, 1000)
    sample(db)
    assert measured(db, "failure-rate")["agent:echo"].value == 0


def test_a_tool_that_fails_and_attempts_that_are_lost_are_seen(db: Database) -> None:
    sample(db)
    count(db, tool_calls__send_failed=30, tool_calls__send_succeeded=10)
    for _ in range(3):
        submit(db)
    worker = start_worker(db)
    claim(db, worker)
    reap(db, worker)
    sample(db)

    assert 0.5 < measured(db, "tool-failure-rate")["tool:send"].value < 0.75
    assert measured(db, "attempts-lost")["agent:echo"].value == 3
    (silent,) = measured(db, "worker-silent").values()
    assert f"worker {worker} (host, process 1) fell silent" in silent.text


def test_a_silent_worker_is_told_before_it_is_reaped_and_is_over_after_a_while(db: Database) -> None:
    start_worker(db, lease_us=15_000_000)
    watch = Watch(db)
    assert watch(14) == {}

    ((name, row),) = watch(10).items()

    assert (name.split()[0], row["state"], row["value"]) == ("worker-silent", "firing", 9.0)


def test_an_open_breaker_is_told(db: Database) -> None:
    from pilothouse.control.breakers import Breakers

    async def fail() -> None:
        breakers = Breakers(db)
        for _ in range(20):
            await breakers.failed("model:openai:gpt", "503")

    wait(fail())

    assert "is open: " in measured(db, "breaker-open")["dependency:model:openai:gpt"].text


def test_budgets_that_burn_run_out_or_are_gone_are_told(db: Database) -> None:
    limit_to(db, 1_000_000, "agent:echo")
    limit_to(db, 4, "tenant:*", unit=Unit.ACTIONS)
    submit(db, tenant="acme")
    (run,) = claim(db, start_worker(db, lease_us=10**15))
    midnight = UTC_CALENDAR.bounds(UTC_CALENDAR.day(START_US))[1]
    later(db, (midnight - START_US) / 1e6 + 3600)
    reserve(db, hold_for(run, microusd=600_000, actions=3))
    settle_all(db)

    day = UTC_CALENDAR.day(db.read_blocking(now_of))
    account = f"agent:echo/{day}/microusd"
    burn = measured(db, "budget-burn")[account]
    assert burn.value == pytest.approx(0.6 * 24)
    assert "$0.60 of $1.00 used for agent:echo" in burn.text
    assert measured(db, "budget-forecast")[account].value == pytest.approx(2400)
    assert measured(db, "budget-exhausted")[account].value == 0.6
    cap = f"tenant:acme/{day}/actions"
    assert measured(db, "action-cap-reached")[cap].value == 0.75
    reserve(db, hold_for(run, actions=1))

    reached = measured(db, "action-cap-reached")[cap]
    assert (reached.value, reached.tenant) == (1.0, "acme")
    assert reached.text.startswith("ACTION_CAP_REACHED: 4 of 4 actions used for tenant:acme")


def settle_all(db: Database) -> None:
    """Whatever is held was used as it was reserved."""
    from pilothouse.control.ledger import Charge
    from pilothouse.domain.limits import Amounts
    from tests.control.money import settle as settle_charges

    sql = "SELECT id, microusd, tokens, actions FROM reservations WHERE state = 'held'"
    rows = db.examine(lambda tx: tx.fetch_all(sql))
    charges = [Charge(row["id"], Amounts(row["microusd"], row["tokens"], row["actions"])) for row in rows]
    settle_charges(db, *charges)


def now_of(tx: Transaction) -> int:
    from pilothouse.control.instants import now

    return now(tx)


def test_a_call_that_cost_more_than_was_reserved_is_told(db: Database) -> None:
    from pilothouse.control.ledger import Charge
    from pilothouse.domain.limits import Amounts
    from tests.control.money import settle as settle_charges

    submit(db)
    (run,) = claim(db, start_worker(db, lease_us=10**15))
    exact, beyond = hold_for(run, microusd=100), hold_for(run, microusd=100, key="other")
    reserve(db, exact, beyond)
    settle_charges(db, Charge(exact.id, Amounts(100)))
    assert measured(db, "limit-overrun") == {}

    settle_charges(db, Charge(beyond.id, Amounts(250)))

    reading = measured(db, "limit-overrun")["agent:echo"]
    assert reading.value == 1
    assert "$0.00015 in money" in reading.text


def test_approvals_that_wait_or_near_their_deadline_are_told(db: Database) -> None:
    asks(db, start_worker(db, lease_us=10**15), deadline_us=3_600_000_000)
    later(db, 3000)

    assert measured(db, "approvals-waiting")["agent:echo"].value == 3000
    near = measured(db, "approval-deadline")["agent:echo"]
    assert near.value == 600
    assert "the next deadline of 1 waiting approval of echo is in 10 min" in near.text


def test_effects_of_unknown_outcome_and_tripped_switches_are_told(db: Database) -> None:
    submit(db)
    (run,) = claim(db, start_worker(db, lease_us=10**15))
    intent = Intent(run.run_id, run.run_id, "s", 1, "default", "echo", "send", None, "write", "h", "{}", "f")
    db.transaction_blocking(lambda tx: write_effects(tx, [intent], []))
    assert measured(db, "effects-unknown") == {}
    settle(db, ended(run, "fatal"))

    assert measured(db, "effects-unknown")["tool:send"].value == 1
    wait(switches.trip_switch(db, TripOrder("agent:echo", reason="odd"), principal="test"))
    found = Watch(db)()
    assert found["switch-tripped switch:agent:echo"]["severity"] == "info"
    assert "is tripped (hold) by test: odd" in found["switch-tripped switch:agent:echo"]["text"]


def test_an_outage_is_told_once_it_is_over(db: Database) -> None:
    watch = Watch(db)
    watch.alerting.away()
    later(db, 20)
    watch.alerting.away()

    row = watch(25)["database-unreachable database"]

    assert (row["state"], row["value"]) == ("firing", 45.0)
    assert watch.over(60) == {}


def test_a_late_chore_and_a_late_seal_are_told(db: Database) -> None:
    from pilothouse.control import leases

    wait(leases.hold(db, "janitor", "gone", lease_us=5_000_000))
    wait(leases.prove_writable(db))  # what somebody who asks for readiness leaves behind is no chore
    submit(db)
    later(db, 400)

    assert {subject: each.value for subject, each in measured(db, "chore-late").items()} == {"chore:janitor": 395}
    assert measured(db, "audit-seal-late")["audit"].value == 400


# --- drift -------------------------------------------------------------------------------------


def block(
    db: Database, watch: Watch, *, cost: int, seconds: float = 1.0, tools: Mapping[str, int] | None = None
) -> Any:
    """Ten runs that have ended."""

    calls = {f"tool_calls__{tool}_succeeded": number for tool, number in (tools or {"read": 20}).items()}
    spent = {"cost_microusd__model_m": 10 * cost, "run_us__": int(10_000_000 * seconds)}
    count(db, runs_ended__succeeded=10, **spent, **calls)
    return watch(BLOCK_SECONDS)


def records(db: Database, entity: str, action: str) -> list[Row]:
    found = db.read_blocking(lambda tx: tx.fetch_all("audit_of_entity", entity_id=entity, after=0, limit=100))
    return [row for row in found if row["action"] == action]


def level(db: Database, *, agent: str) -> Level:
    """What counts for an action of which nothing was said."""
    return db.read_blocking(lambda tx: autonomy.level_of(tx, agent, "f", "send", Level.ASSISTED)).level


@pytest.mark.corrupts
def test_an_agent_that_becomes_dearer_is_told_loses_its_autonomy_and_may_be_accepted(db: Database) -> None:
    watch = Watch(db)
    block(db, watch, cost=0)
    for number in range(60):
        assert not block(db, watch, cost=1000 + 10 * (number % 7)), "nothing has changed"
    for number in range(25):
        found = block(db, watch, cost=3000 + 10 * (number % 7), seconds=1.0)

    ((name, row),) = found.items()
    assert (name, row["state"]) == ("cost-drift agent:echo", "firing")
    assert row["value"] >= 20_000
    assert "a run of echo costs $0.0030 now, $0.0011 on average so far" in row["text"]
    assert "`pilothouse alerts accept cost-drift echo`" in row["text"]
    (demoted,) = records(db, "echo", "autonomy.demoted")
    (fired,) = records(db, row["id"], "alert.fired")
    assert (demoted["before"], demoted["after"], demoted["at"]) == ("assisted", "supervised", fired["at"])
    assert "it has drifted: a run of echo costs" in demoted["reason"]

    wait(alerts.accept(db, "cost-drift", "echo", principal="test"))

    assert watch.over(310) == {}
    assert [level(db, agent="echo"), level(db, agent="other")] == ["supervised", "assisted"]
    assert len(records(db, "echo", "autonomy.demoted")) == 1
    with pytest.raises(InvalidInput, match="nothing usual to rule 'queue-age'"):
        wait(alerts.accept(db, "queue-age", "echo", principal="test"))
    with pytest.raises(NotFound, match="has no baseline"):
        wait(alerts.accept(db, "cost-drift", "nobody", principal="test"))


@pytest.mark.corrupts
def test_slower_runs_and_other_tools_are_told(db: Database) -> None:
    watch = Watch(db)
    block(db, watch, cost=0)
    for number in range(70):
        found = block(db, watch, cost=1, seconds=1 + number % 5 / 10, tools={"read": 20 + number % 3, "write": 5})
    assert not found
    for number in range(25):
        found = block(db, watch, cost=1, seconds=3 + number % 5 / 10, tools={"read": 5, "delete": 20 + number % 3})

    assert set(found) == {"latency-drift agent:echo", "tool-mix-drift agent:echo"}
    assert len(records(db, "echo", "autonomy.demoted")) == 1, "of a version that is supervised nothing is left to take"
