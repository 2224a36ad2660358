"""Budgets, costs and reservations on both stores: what operators see is what the ledger holds; what they set stands."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.clock import FrozenClock, new_id
from pilothouse.control import budgets, checks, costs, ledger, limits, reservations, retention, run_budgets
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.calls import ModelCall, StepCalls
from pilothouse.control.costs import Span
from pilothouse.control.ledger import Charge, Hold
from pilothouse.control.reservations import Outcome
from pilothouse.control.run_budgets import Grant
from pilothouse.control.waits import Wait
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.costs import GROUPS, Compared, CostLine, Figure
from pilothouse.domain.limits import Amounts, Limit, Payer, Period, Unit
from pilothouse.domain.prices import Usage
from pilothouse.errors import Conflict, InvalidInput, LimitReached, NotFound
from pilothouse.store.database import Database, Row, open_database
from pilothouse.store.migrations import migrate
from tests.control.steps import (
    actions_of,
    card,
    checkpoint,
    claim,
    ended,
    register,
    settle,
    start_worker,
    submit,
    write,
)

T = TypeVar("T")

DAY_US = 86_400_000_000
START_US = 1_799_998_500_000_000
TODAY, MONTH = UTC_CALENDAR.day(START_US), UTC_CALENDAR.month(START_US)
SPAN = Span("2000-01-01", "9999-12-31")


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """With a clock that stands still, and two agents; whatever a test does must leave the invariants whole."""
    db = open_database(database_url, clock=FrozenClock(START_US))
    db.start()
    migrate(db)
    register(db, card("echo"), card("other"))
    yield db
    assert_whole(db)
    db.close()


def wait(work: Coroutine[Any, Any, T]) -> T:
    """The outcome, whether the test itself is a coroutine or not."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def assert_whole(db: Database) -> None:
    verdicts = db.read_blocking(lambda tx: checks.verdicts(tx, checks.ANY_GRACE_US))
    assert not [verdict for verdict in verdicts if not verdict.holds]


def advance(db: Database, days: float) -> None:
    assert isinstance(db.clock, FrozenClock)
    db.clock.advance(seconds=days * 86_400)


def set_limit(db: Database, scope: str, amount: int | None, *, per: str = "day", unit: str = "microusd") -> None:
    limit = Limit(scope, Period(per), Unit(unit), amount)
    wait(limits.set_limit(db, limit, principal="me"))


def begin(db: Database, agent: str = "echo", **options: Any) -> ClaimedRun:
    submit(db, agent, **options)
    (run,) = claim(db, start_worker(db, lease_us=10**15), agents=(agent,))
    return run


def payer_of(run: ClaimedRun, **names: str) -> Payer:
    return Payer(run.run_id, run.tenant, run.agent, run.user_id, names.get("platform"), names.get("tool"))


def hold(db: Database, run: ClaimedRun, microusd: int = 100, tokens: int = 10, **names: str) -> str:
    """Reserves; the reservation's id. Raises LimitReached."""
    model = names.get("model", "openai:m")
    wanted = Hold(new_id(), "ask", run.attempt, payer_of(run, **names), Amounts(microusd, tokens), model)
    (answer,) = db.transaction_blocking(lambda tx: ledger.reserve(tx, [wanted], UTC_CALENDAR))
    if isinstance(answer, Exception):
        raise answer
    return wanted.id


def charge(db: Database, id: str, microusd: int, tokens: int = 10) -> None:
    charges = [Charge(id, Amounts(microusd, tokens))]
    db.transaction_blocking(lambda tx: ledger.settle(tx, charges, UTC_CALENDAR))


def spend(db: Database, run: ClaimedRun, microusd: int, **names: str) -> str:
    id = hold(db, run, microusd, 10, **names)
    charge(db, id, microusd)
    return id


def listed(db: Database, **options: Any) -> dict[tuple[str, str, str], budgets.Budget]:
    found = wait(budgets.list_budgets(db, UTC_CALENDAR, **options))
    return {(each.standing.account, each.standing.period, each.standing.unit): each for each in found.items}


def ledger_rows(db: Database) -> list[Row]:
    return db.administer(lambda tx: tx.fetch_all("SELECT * FROM ledger ORDER BY seq"))


def report(db: Database, by: str, span: Span = SPAN) -> list[CostLine]:
    return wait(costs.report(db, by, UTC_CALENDAR, span=span))[1]


# --- how limits stand --------------------------------------------------------------------------------


def test_every_account_of_a_limit_is_listed_the_tightest_first(db: Database) -> None:
    set_limit(db, "global", 10_000)
    set_limit(db, "tenant:*", 1000)
    set_limit(db, "tenant:big", 100_000)
    set_limit(db, "agent:*", 500, per="month", unit="tokens")
    small, big = begin(db, tenant="small"), begin(db, tenant="big")
    spend(db, small, 900)
    hold(db, big, 2000)

    found = listed(db)

    assert next(iter(found)) == ("tenant:small", TODAY, "microusd")
    global_one = found["global", TODAY, "microusd"].standing
    assert (global_one.settled, global_one.reserved, global_one.free) == (900, 2000, 7100)
    assert found["tenant:big", TODAY, "microusd"].standing.limit == 100_000
    assert found["agent:echo", MONTH, "tokens"].standing.used == 20
    assert ("tenant:*", TODAY, "microusd") not in found, "it stands for itself only where nobody has used anything"


def test_of_many_users_those_who_have_used_the_most_are_listed(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "USERS_SHOWN", 1)
    set_limit(db, "user:*", 1000, unit="tokens")
    set_limit(db, "tenant:*", 1000)
    little, much = begin(db, user_id="little"), begin(db, user_id="much")
    spend(db, little, 5)
    hold(db, much, 5, 500)

    found = listed(db)

    assert [account for account, _, _ in found if account.startswith("user:")] == ["user:much"]
    assert ("tenant:default", TODAY, "microusd") in found


def test_a_limit_that_nobody_has_asked_for_yet_shows_what_the_ledger_holds(db: Database) -> None:
    run = begin(db, user_id="ann")
    spend(db, run, 700)
    set_limit(db, "user:ann", 1000, per="month")
    set_limit(db, "tool:x", 5)

    assert listed(db)["user:ann", MONTH, "microusd"].standing.settled == 700
    assert listed(db)["tool:x", TODAY, "microusd"].standing.settled == 0


def test_runs_under_way_are_listed_on_demand_and_their_rules_always(db: Database) -> None:
    set_limit(db, "run:*", 1000, per="run")
    run = begin(db)
    spend(db, run, 250)
    key = f"run:{run.run_id}", "run", "microusd"

    assert ("run:*", "run", "microusd") in listed(db)
    assert key not in listed(db)
    assert listed(db, with_runs=True)[key].standing.free == 750


async def test_a_limit_below_what_is_spent_stands_and_names_who_is_over(db: Database) -> None:
    limit = Limit("tenant:*", Period.DAY, Unit.MICROUSD, 10_000)
    await limits.set_limit(db, limit, principal="me")
    run = begin(db)
    spend(db, run, 900)
    lower = limit._replace(amount=100)
    await limits.set_limit(db, lower, principal="me")

    assert [each.account for each in await budgets.over_limit(db, lower, UTC_CALENDAR)] == ["tenant:default"]
    assert await budgets.over_limit(db, limit._replace(period=Period.MONTH), UTC_CALENDAR) == []
    with pytest.raises(LimitReached, match=r"the limit of tenant:default for .* is \$0.0001: \$0.0009 spent"):
        hold(db, run, 1)


async def test_all_runs_together_and_those_that_are_blocked(db: Database) -> None:
    await limits.set_limit(db, Limit("global", Period.DAY, Unit.MICROUSD, 1000), principal="me")
    run = begin(db)
    spend(db, run, 300)
    waits = (Wait("limit", f"global/{TODAY}/microusd@{epoch_of(db)}", "ask"),)
    settle(db, ended(run, "suspended", waits=waits, wake_at=START_US + DAY_US))

    (day, month), blocked = await db.read(lambda tx: budgets.overview_in(tx, UTC_CALENDAR))

    assert (day.limit, day.settled, month.limit, month.settled, blocked) == (1000, 300, None, 300, 1)


def epoch_of(db: Database) -> int:
    row = db.read_blocking(lambda tx: tx.fetch_one("limits_epoch"))
    assert row is not None
    return int(row["epoch"])


# --- limits of settings and of Apps ------------------------------------------------------------------


def test_apps_bring_the_limits_of_their_own_agents_and_leave_the_others_alone(db: Database) -> None:
    def adopt(agents: dict[str, int], *, settings_amount: int = 5) -> None:
        declared = [Limit(f"run@{name}", Period.RUN, Unit.CALLS, amount) for name, amount in agents.items() if amount]
        base = [Limit("run:*", Period.RUN, Unit.CALLS, settings_amount)]
        db.transaction_blocking(lambda tx: limits.adopt(tx, base, principal="settings"))
        db.transaction_blocking(lambda tx: limits.adopt_of_agents(tx, agents, declared, principal="app:x"))

    def known() -> dict[str, int]:
        return {row["scope"]: row["amount"] for row in db.read_blocking(lambda tx: tx.fetch_all("list_limits"))}

    adopt({"a": 1})
    adopt({"b": 2, "c": 3})
    assert known() == {"run:*": 5, "run@a": 1, "run@b": 2, "run@c": 3}

    adopt({"b": 4, "c": 0}, settings_amount=6)
    assert known() == {"run:*": 6, "run@a": 1, "run@b": 4}

    set_limit(db, "run@b", 9, per="run", unit="calls")
    adopt({"b": 4})
    assert known()["run@b"] == 9, "what an operator has set stands"


# --- a run's budget ----------------------------------------------------------------------------------


async def test_a_grant_counts_from_what_is_used_and_wakes_the_run(db: Database) -> None:
    await limits.set_limit(db, Limit("run:*", Period.RUN, Unit.MICROUSD, 1000), principal="me")
    run = begin(db)
    spend(db, run, 900)
    waits = (Wait("limit", f"run:{run.run_id}/run/microusd@{epoch_of(db)}", "ask"),)
    settle(db, ended(run, "suspended", waits=waits))

    granted = await run_budgets.grant(db, Grant(run.run_id, Unit.MICROUSD, 500), principal="me")
    again = await run_budgets.grant(db, Grant(run.run_id, Unit.MICROUSD, 500), principal="me")
    less = await run_budgets.grant(db, Grant(run.run_id, Unit.MICROUSD, 1), principal="me")

    assert granted == again == less == (900, 1400, ())
    assert "limit.set" in actions_of(db, f"run:{run.run_id}/run/microusd")
    (going_on,) = claim(db, start_worker(db, lease_us=10**15))
    assert going_on.run_id == run.run_id
    hold(db, going_on, 500)
    with pytest.raises(LimitReached, match=rf"give more: `pilothouse budget grant {run.run_id} --usd 0.01`"):
        hold(db, going_on, 1)


async def test_what_cannot_be_granted_is_refused(db: Database) -> None:
    run = begin(db)

    with pytest.raises(Conflict, match="has no limit on tokens of its own"):
        await run_budgets.grant(db, Grant(run.run_id, Unit.TOKENS, 5), principal="me")
    with pytest.raises(InvalidInput, match="a grant is more than 0"):
        await run_budgets.grant(db, Grant(run.run_id, Unit.TOKENS, 0), principal="me")
    with pytest.raises(NotFound):
        await run_budgets.grant(db, Grant("nobody", Unit.TOKENS, 5), principal="me")
    settle(db, ended(run))
    with pytest.raises(Conflict, match="is succeeded; it uses nothing any more"):
        await run_budgets.grant(db, Grant(run.run_id, Unit.TOKENS, 5), principal="me")


async def test_every_rule_of_a_run_is_explained_with_its_figures(db: Database) -> None:
    for scope, per, amount in (("run:*", "run", 10_000), ("run@echo", "run", 5000), ("global", "day", 20_000)):
        await limits.set_limit(db, Limit(scope, Period(per), Unit.MICROUSD, amount), principal="me")
    await limits.set_limit(db, Limit("platform:*", Period.MONTH, Unit.MICROUSD, 7000), principal="me")
    await limits.set_limit(db, Limit("tool:other", Period.DAY, Unit.ACTIONS, 1), principal="me")
    await limits.set_limit(db, Limit("run:*", Period.RUN, Unit.CALLS, 3), principal="me")
    run = begin(db)
    spend(db, run, 100, platform="openai")
    hold(db, run, 50)
    spend(db, begin(db, "other"), 1000, platform="openai")

    found = await run_budgets.explain(db, run.run_id, UTC_CALENDAR)

    figures = {
        (each.standing.account, each.standing.period, each.standing.unit, each.scope): (
            each.standing.limit, each.standing.settled, each.standing.reserved
        )
        for each in found.rules
    }  # fmt: skip
    assert figures == {
        (f"run:{run.run_id}", "run", "microusd", "run@echo"): (5000, 100, 50),
        (f"run:{run.run_id}", "run", "calls", "run:*"): (3, 0, 0),
        ("global", TODAY, "microusd", "global"): (20_000, 1100, 50),
        ("platform:openai", MONTH, "microusd", "platform:*"): (7000, 1100, 0),
    }
    with pytest.raises(NotFound):
        await run_budgets.explain(db, "nobody", UTC_CALENDAR)


# --- reservations that nobody has settled --------------------------------------------------------------


async def test_what_a_dead_attempt_has_reserved_counts_until_somebody_settles_it(db: Database) -> None:
    await limits.set_limit(db, Limit("global", Period.DAY, Unit.MICROUSD, 1000), principal="me")
    run = begin(db)
    id = hold(db, run, 600, tokens=60)
    assert await reservations.list_unsettled(db) == []
    with pytest.raises(Conflict, match=r"attempt .*\.1 still runs"):
        await reservations.settle_reservation(db, id, Outcome(1), UTC_CALENDAR, principal="me")
    settle(db, ended(run, "failed", delay_seconds=1.0))

    (row,) = await reservations.list_unsettled(db)
    assert (row["id"], row["microusd"], row["run_state"], row["model"]) == (id, 600, "queued", "openai:m")
    assert await reservations.list_unsettled(db, tenant="other") == []
    settled = await reservations.settle_reservation(db, id, Outcome(200), UTC_CALENDAR, principal="me", reason="asked")

    assert settled["state"] == "settled"
    standing = listed(db)["global", TODAY, "microusd"].standing
    assert (standing.settled, standing.reserved) == (200, 0)
    assert [row["settled_tokens"] for row in ledger_rows(db)] == [0, 60], "as many as were reserved"
    assert actions_of(db, id) == ["reservation.settled"]
    with pytest.raises(Conflict, match="is settled already"):
        await reservations.settle_reservation(db, id, Outcome(1), UTC_CALENDAR, principal="me")
    with pytest.raises(NotFound, match="there is no reservation nothing"):
        await reservations.settle_reservation(db, "nothing", Outcome(1), UTC_CALENDAR, principal="me")
    with pytest.raises(InvalidInput, match="0 or more"):
        await reservations.settle_reservation(db, id, Outcome(-1), UTC_CALENDAR, principal="me")


def test_what_a_pruned_run_has_spent_stays_in_the_ledger_and_its_open_reservation_with_it(db: Database) -> None:
    set_limit(db, "run:*", 1000, per="run")
    set_limit(db, "global", 5000, per="month")
    run = begin(db)
    set_limit(db, f"run:{run.run_id}", 2000, per="run")
    set_limit(db, "agent:*", 5000)
    spend(db, run, 300)
    held = hold(db, run, 100)
    settle(db, ended(run))
    age_runs(db)

    assert db.transaction_blocking(lambda tx: retention.prune_batch(tx, keep_us=30 * DAY_US)) == [run.run_id]

    assert count(db, "SELECT count(*) AS found FROM balances WHERE period = 'run'") == 0
    assert count(db, "SELECT count(*) AS found FROM limits WHERE scope LIKE 'run:0%'") == 0
    assert [row["id"] for row in wait(reservations.list_unsettled(db))] == [held]
    assert_whole(db)
    (line,) = report(db, "agent")
    assert (line.microusd, line.runs, line.known_runs, line.microusd_per_success) == (300, 1, 0, None)
    assert [each.name for each in report(db, "version")] == [None]
    wait(reservations.settle_reservation(db, held, Outcome(50), UTC_CALENDAR, principal="me"))
    assert count(db, "SELECT count(*) AS found FROM reservations") == 0, "a settled one goes with its run"
    assert report(db, "agent")[0].microusd == 350


def age_runs(db: Database) -> None:
    """Ids are made of today's time: the clock of the test moves a year beyond it."""
    now = int(new_id().replace("-", "")[:12], 16) * 1000
    advance(db, (now - db.clock.now_us()) / DAY_US + 365)


def count(db: Database, sql: str) -> int:
    (row,) = db.administer(lambda tx: tx.fetch_all(sql))
    return int(row["found"])


# --- reports -----------------------------------------------------------------------------------------

SPENT = st.tuples(
    st.sampled_from(["echo", "other"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, "ann"]),
    st.sampled_from(["openai:m", "openai:n"]),
    st.integers(0, 1000),
    st.sampled_from(["settled", "held", "given back"]),
    st.booleans(),
)


@given(st.lists(SPENT, max_size=12), st.integers(0, 2))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_report_adds_up_to_the_ledger(db: Database, entries: list[Any], days: int) -> None:
    for agent, tenant, user, model, microusd, how, succeeds in entries:
        run = begin(db, agent, tenant=tenant, user_id=user)
        id = hold(db, run, 1000, model=model, platform="openai")
        if how != "held":
            charge(db, id, microusd if how == "settled" else 0, 7 if how == "settled" else 0)
        settle(db, ended(run, "succeeded" if succeeds else "fatal"))
    advance(db, days)
    rows = ledger_rows(db)

    for by in GROUPS:
        lines = report(db, by)
        assert sum(line.microusd for line in lines) == sum(row["settled_microusd"] for row in rows)
        assert sum(line.reserved_microusd for line in lines) == sum(row["reserved_microusd"] for row in rows)
        assert sum(line.tokens for line in lines) == sum(row["settled_tokens"] for row in rows)
        for line in lines:
            assert 0 <= line.succeeded <= line.known_runs == line.runs
    by_agent = {line.name: line for line in report(db, "agent")}
    for name, line in by_agent.items():
        own = [row for row in rows if row["agent"] == name]
        assert line.runs == len({row["run_id"] for row in own})
        assert line.microusd == sum(row["settled_microusd"] for row in own)
    assert report(db, "agent", Span("2000-01-01", "2000-01-31")) == []


def test_a_report_is_of_the_days_that_are_asked_for(db: Database) -> None:
    run = begin(db)
    spend(db, run, 100)
    advance(db, 1)
    spend(db, run, 50)
    tomorrow = UTC_CALENDAR.day(START_US + DAY_US)

    assert [(line.name, line.microusd) for line in report(db, "day")] == [(TODAY, 100), (tomorrow, 50)]
    assert [line.microusd for line in report(db, "model", Span(tomorrow, tomorrow))] == [50]
    assert wait(costs.report(db, "agent", UTC_CALENDAR, tenant="nobody"))[1] == []
    with pytest.raises(InvalidInput, match=f"the first day, {tomorrow}, is after the last, {TODAY}"):
        report(db, "day", Span(tomorrow, TODAY))
    settle(db, ended(run))
    (line,) = report(db, "version")
    assert (line.name, line.runs, line.succeeded, line.microusd_per_success) == ("echo f", 1, 1, 150)


# --- newer prices ------------------------------------------------------------------------------------


def answered(db: Database, run: ClaimedRun, key: str, microusd: int, model: str = "openai:m") -> None:
    """A question with its record and its charge."""
    id = spend(db, run, microusd, model=model)
    call = ModelCall(
        "r",
        model,
        "answered",
        None,
        None,
        Usage(input=100, output=10),
        None,
        microusd,
        "list",
        db.clock.now_us(),
        1,
        id,
    )
    assert write(db, checkpoint(run, key)._replace(kind="model", calls=StepCalls(models=(call,)))) == [None]


async def test_newer_prices_are_booked_as_differences_and_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PAGE", 2)
    await limits.set_limit(db, Limit("global", Period.DAY, Unit.MICROUSD, 10_000), principal="me")
    run = begin(db)
    for number, model in enumerate(("openai:m", "openai:m", "openai:n", "openai:unknown", "openai:m")):
        answered(db, run, f"q{number}", 100, model)
    before = ledger_rows(db)
    prices = {"openai:m": 1, "openai:n": 0}

    def price_of(model: str, usage: Usage, at: int) -> int | None:
        return None if model == "openai:unknown" else prices[model] * usage.total

    async def reprice(**options: Any) -> costs.Repriced:
        return await costs.reprice(db, START_US, price_of, UTC_CALENDAR, principal="me", **options)

    tried = await reprice(dry_run=True)
    assert ledger_rows(db) == before
    assert await reprice() == tried == (5, 4, 400, 330, frozenset({"openai:unknown"}))

    after = ledger_rows(db)
    assert after[: len(before)] == before, "nothing is rewritten"
    assert [(row["kind"], row["settled_microusd"]) for row in after[len(before) :]] == [
        ("adjust", 10), ("adjust", 10), ("adjust", -100), ("adjust", 10)
    ]  # fmt: skip
    assert listed(db)["global", TODAY, "microusd"].standing.settled == 430
    assert (await reprice()).changed == 0
    assert (await costs.reprice(db, START_US + 1, price_of, UTC_CALENDAR, principal="me")).calls == 0
    assert "ledger.repriced" in actions_of(db, "calls")


async def test_two_who_mend_the_ledger_at_once_book_a_difference_once(db: Database) -> None:
    run, dead = begin(db), begin(db)
    for number in range(20):
        answered(db, run, f"q{number}", 100)
    held = hold(db, dead, 500)
    settle(db, ended(dead, "fatal"))

    def price_of(model: str, usage: Usage, at: int) -> int:
        return 40

    async def say(microusd: int) -> Row:
        return await reservations.settle_reservation(db, held, Outcome(microusd), UTC_CALENDAR, principal="me")

    found = await asyncio.gather(
        *(costs.reprice(db, START_US, price_of, UTC_CALENDAR, principal="me") for _ in range(4))
    )
    said = await asyncio.gather(*(say(microusd) for microusd in (10, 20, 30)), return_exceptions=True)

    assert sum(each.changed for each in found) == 20
    assert sum(isinstance(each, Conflict) for each in said) == 2
    assert actions_of(db, held) == ["reservation.settled"]
    assert sum(row["settled_microusd"] for row in ledger_rows(db) if row["reservation_id"] != held) == 20 * 40


async def test_what_was_cheaper_than_thought_wakes_who_waits_for_room(db: Database) -> None:
    await limits.set_limit(db, Limit("global", Period.DAY, Unit.MICROUSD, 100), principal="me")
    run = begin(db)
    answered(db, run, "q", 100)
    waits = (Wait("limit", f"global/{TODAY}/microusd@{epoch_of(db)}", "ask"),)
    settle(db, ended(run, "suspended", waits=waits, wake_at=START_US + DAY_US))
    assert claim(db, start_worker(db, lease_us=10**15)) == []

    await costs.reprice(db, START_US, lambda model, usage, at: 10, UTC_CALENDAR, principal="me")

    assert [each.run_id for each in claim(db, start_worker(db, lease_us=10**15))] == [run.run_id]


# --- a provider's figures ----------------------------------------------------------------------------


async def compared(db: Database, **theirs: int) -> list[Compared]:
    figures = {(TODAY, model): Figure(microusd, None) for model, microusd in theirs.items()}
    return await costs.reconcile(db, figures, "openai")


async def test_the_ledger_is_brought_to_what_the_provider_says_once_its_day_is_over(db: Database) -> None:
    await limits.set_limit(db, Limit("global", Period.MONTH, Unit.MICROUSD, 100_000), principal="me")
    first, second, dead = begin(db), begin(db, tenant="acme"), begin(db)
    spend(db, first, 300)
    spend(db, second, 100)
    hold(db, dead, 500)
    rows = await compared(db, m=700, unknown=5)
    assert [(row.model, row.difference_microusd, row.held_microusd) for row in rows] == [
        ("m", 300, 500),
        ("unknown", None, 0),
    ]

    booked, left = await costs.book(db, rows, UTC_CALENDAR, principal="me")
    assert (booked, len(left)) == ((0, 0, 0), 2), "the day goes on"
    advance(db, 1)
    booked, left = await costs.book(db, rows, UTC_CALENDAR, principal="me")
    assert (booked, len(left)) == ((0, 0, 0), 2), "an attempt holds its reservation"
    settle(db, ended(dead, "fatal"))
    booked, left = await costs.book(db, rows, UTC_CALENDAR, principal="me")
    assert (booked, [row.model for row in left]) == ((1, 300, 0), ["unknown"])

    rows = await compared(db, m=1100)
    booked, _ = await costs.book(db, rows, UTC_CALENDAR, principal="me")
    again, _ = await costs.book(db, rows, UTC_CALENDAR, principal="me")
    assert (booked, again) == ((0, 0, 400), (0, 0, 0))
    assert {line.name: line.microusd for line in report(db, "tenant")} == {"default": 943, "acme": 157}
    rows = await compared(db, m=10)
    await costs.book(db, rows, UTC_CALENDAR, principal="me")
    assert sum(line.microusd for line in report(db, "day")) == 10
    assert all(line.microusd >= 0 for line in report(db, "tenant"))
    assert "ledger.reconciled" in actions_of(db, f"{TODAY} m")


async def test_nothing_is_compared_with_an_empty_file(db: Database) -> None:
    assert await costs.reconcile(db, {}, None) == []
