"""Whatever is reserved, settled, limited and lost in whatever order: no reservation passes a limit, every refusal is
true, and what fits is not refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pilothouse.clock import FrozenClock, new_id
from pilothouse.control import limits
from pilothouse.control.attempts import ClaimedRun
from pilothouse.control.ledger import Charge, Hold
from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import COUNTED, Amounts, Limit, Payer, Period, Unit
from pilothouse.errors import LeaseLost, LimitReached
from pilothouse.store.database import Database, open_database
from pilothouse.store.migrations import migrate
from tests.control.money import balances, book, broken_money, limit_to, reserve, settle
from tests.control.steps import card, claim, reap, register, start_worker, submit

SECOND_US = 1_000_000
LATE = 1_795_996_800 * SECOND_US  # 2026-11-30T00:00Z: a month ends soon
SCOPES = (
    "global",
    "agent:echo",
    "agent:*",
    "tenant:acme",
    "tenant:*",
    "user:bob",
    "user:*",
    "platform:openai",
    "tool:mail",
)
RUN_SCOPES = ("run:*", "run@echo", "run@other")
EMPTY = (
    "DELETE FROM balances",
    "DELETE FROM reservations",
    "DELETE FROM ledger",
    "DELETE FROM limits",
    "DELETE FROM waits",
    "UPDATE runs SET available_at = NULL",
    "UPDATE workers SET state = 'stopped', stopped_at = 0",
)
AGENTS = ("echo", "other")
Key = tuple[str, Period, Unit]

amounts = st.builds(Amounts, st.integers(0, 12), st.integers(0, 12), st.integers(0, 2))


class ResetClock(FrozenClock):
    """It begins anew with each example."""

    def reset(self) -> None:
        self._now_us = LATE


class Known:
    """One reservation as the model knows it."""

    def __init__(self, hold: Hold, day: str, month: str) -> None:
        self.id, self.payer, self.reserved = hold.id, hold.payer, hold.amounts
        self.day, self.month = day, month
        self.settled: Amounts | None = None

    def accounts(self) -> set[tuple[str, str]]:
        payer = self.payer
        names = {"agent": payer.agent, "tenant": payer.tenant, "user": payer.user_id, "platform": payer.platform}
        names["tool"] = payer.tool
        found = {"global", *(f"{kind}:{name}" for kind, name in names.items() if name is not None)}
        return {(account, period) for account in found for period in (self.day, self.month)} | {
            (f"run:{payer.run_id}", "run")
        }


class LedgerMachine(RuleBasedStateMachine):
    """The model: every reservation so far, and the limits in force. It adds up where the product keeps balances."""

    db: Database
    clock: ResetClock

    @initialize()
    def begin(self) -> None:
        for statement in EMPTY:
            self.db.administer(lambda tx, statement=statement: tx.execute(statement))  # type: ignore[misc]
        self.clock.reset()
        self.entries: list[Known] = []
        self.limits: dict[Key, int | None] = {}
        self.set_by_operator: set[Key] = set()
        self.worker = start_worker(self.db)
        self.runs: list[ClaimedRun] = []
        self.lost: list[ClaimedRun] = []
        for tenant, agent, user in (("acme", "echo", "bob"), ("acme", "other", None), ("beta", "echo", "eve")):
            submit(self.db, agent, tenant=tenant, user_id=user)
        self.claim()

    def claim(self) -> None:
        claimed = claim(self.db, self.worker, agents=AGENTS)
        self.runs += sorted(claimed, key=lambda run: (run.tenant, run.agent))

    # --- the model -------------------------------------------------------------------------

    @property
    def day(self) -> str:
        return UTC_CALENDAR.day(self.clock.now_us())

    @property
    def month(self) -> str:
        return UTC_CALENDAR.month(self.clock.now_us())

    def used(self, account: tuple[str, str], unit: Unit, freed: tuple[str, ...] = ()) -> int:
        return sum(
            (each.reserved if each.settled is None else each.settled).of(unit)
            for each in self.entries
            if account in each.accounts() and each.id not in freed
        )

    def closest(self, account: str, period: str, unit: Unit, agent: str) -> int | None:
        kind, _, name = account.partition(":")
        when = Period.RUN if period == "run" else Period.DAY if len(period) == 10 else Period.MONTH
        scopes = (
            [account, f"run@{agent}", "run:*"] if when == Period.RUN else [account, *([f"{kind}:*"] if name else [])]
        )
        return next((self.limits[scope, when, unit] for scope in scopes if (scope, when, unit) in self.limits), None)

    def full(self, entry: Known, freed: tuple[str, ...] = ()) -> set[tuple[str, str, Unit]]:
        """Where there is no room for it."""
        found = set()
        for account, period in entry.accounts():
            for unit in COUNTED:
                limit, wanted = self.closest(account, period, unit, entry.payer.agent), entry.reserved.of(unit)
                if limit is not None and wanted and self.used((account, period), unit, freed) + wanted > limit:
                    found.add((account, period, unit))
        return found

    def expect(self, hold: Hold, answer: object, freed: tuple[str, ...] = ()) -> bool:
        """Whether it was reserved, as it must be exactly where nothing is in its way."""
        entry = Known(hold, self.day, self.month)
        full = self.full(entry, freed)
        if not full:
            assert answer is None or isinstance(answer, float), f"{hold} fits, and was refused: {answer}"
            self.entries.append(entry)
            return True
        assert isinstance(answer, LimitReached), f"{hold} passes {full}, and was answered {answer!r}"
        told = answer.reached
        assert (told.account, told.period, told.unit) in full
        if not freed:
            assert told.settled + told.reserved == self.used((told.account, told.period), Unit(told.unit))
        assert told.settled + told.reserved + told.wanted > told.limit
        return False

    # --- rules -----------------------------------------------------------------------------

    @rule(
        scope=st.sampled_from(SCOPES + RUN_SCOPES),
        period=st.sampled_from([Period.DAY, Period.MONTH]),
        unit=st.sampled_from(COUNTED),
        amount=st.one_of(st.none(), st.integers(0, 60)),
    )
    def set_limit(self, scope: str, period: Period, unit: Unit, amount: int | None) -> None:
        period = Period.RUN if scope in RUN_SCOPES else period
        limit_to(self.db, amount, scope, period=period, unit=unit)
        self.limits[scope, period, unit] = amount
        self.set_by_operator.add((scope, period, unit))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), unit=st.sampled_from(COUNTED), amount=st.one_of(st.none(), st.integers(0, 60)))
    def grant_to_a_run(self, data: st.DataObject, unit: Unit, amount: int | None) -> None:
        run = data.draw(st.sampled_from(self.runs))
        limit_to(self.db, amount, f"run:{run.run_id}", period=Period.RUN, unit=unit)
        self.limits[f"run:{run.run_id}", Period.RUN, unit] = amount
        self.set_by_operator.add((f"run:{run.run_id}", Period.RUN, unit))

    @rule(
        wanted=st.dictionaries(
            st.tuples(st.sampled_from(SCOPES), st.sampled_from([Period.DAY, Period.MONTH]), st.sampled_from(COUNTED)),
            st.integers(0, 60),
            max_size=3,
        )
    )
    def start_with_settings(self, wanted: dict[Key, int]) -> None:
        given = [Limit(*key, amount) for key, amount in wanted.items()]
        self.db.transaction_blocking(lambda tx: limits.adopt(tx, given, principal="settings"))
        kept: dict[Key, int | None] = {
            key: amount for key, amount in self.limits.items() if key in self.set_by_operator
        }
        self.limits = {**wanted, **kept}

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def reserve(self, data: st.DataObject) -> None:
        """A batch, in which some do not hold their run any more: those count for nobody."""
        holds = [self.draw_hold(data, self.runs + self.lost) for _ in range(data.draw(st.integers(1, 4)))]

        answers = reserve(self.db, *holds)

        own = {(run.run_id, run.attempt) for run in self.runs}
        for hold, answer in zip(holds, answers, strict=True):
            if (hold.payer.run_id, hold.attempt) in own:
                self.expect(hold, answer)
            else:
                assert isinstance(answer, LeaseLost)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def book_with_steps(self, data: st.DataObject) -> None:
        """As a tool's intents are; the first gives back what an earlier try had reserved."""
        run = data.draw(st.sampled_from(self.runs))
        holds = [self.draw_hold(data, [run]) for _ in range(data.draw(st.integers(1, 3)))]
        held = [each for each in self.entries if each.settled is None and each.payer.run_id == run.run_id]
        freed = data.draw(st.lists(st.sampled_from(held), unique_by=lambda each: each.id, max_size=2)) if held else []

        answers = book(self.db, run, *holds, charges=[Charge(each.id, Amounts()) for each in freed])

        if self.expect(holds[0], answers[0], tuple(each.id for each in freed)):
            rest = [(hold, answer) for hold, answer in zip(holds[1:], answers[1:], strict=True)]
            for hold, answer in rest:  # to them nothing is given back yet
                self.expect(hold, answer)
            for each in freed:
                each.settled = Amounts()
        else:
            for hold, answer in zip(holds[1:], answers[1:], strict=True):
                self.expect(hold, answer)

    def draw_hold(self, data: st.DataObject, runs: list[ClaimedRun]) -> Hold:
        run = data.draw(st.sampled_from(runs))
        platform, tool = data.draw(st.sampled_from([(None, None), ("openai", None), ("smtp", "mail")]))
        payer = Payer(run.run_id, run.tenant, run.agent, run.user_id, platform, tool)
        return Hold(new_id(), "s", run.attempt, payer, data.draw(amounts))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Less than was reserved, as much, or more; some are settled already, or were never there, or come twice."""
        chosen = data.draw(st.lists(st.sampled_from(self.entries), min_size=1, max_size=4))
        charges = [Charge(each.id, data.draw(st.one_of(st.just(each.reserved), amounts))) for each in chosen]

        settle(self.db, *charges, Charge("unknown", Amounts(99)))

        for each, charge in zip(chosen, charges, strict=True):
            if each.settled is None:
                each.settled = charge.amounts

    @precondition(lambda self: len(self.lost) < 6)
    @rule()
    def lose_the_worker(self) -> None:
        """What it had reserved stays reserved."""
        reap(self.db, self.worker)
        self.lost, self.runs, self.worker = self.lost + self.runs, [], start_worker(self.db)
        self.claim()

    @rule(hours=st.sampled_from([1, 11, 24, 24 * 31]))
    def pass_time(self, hours: int) -> None:
        self.clock.advance(seconds=3600 * hours)
        if not self.runs:
            self.claim()

    @invariant()
    def the_balances_are_what_was_spent(self) -> None:
        assert broken_money(self.db) == []
        for (account, period), row in balances(self.db).items():
            for unit in COUNTED:
                kept = row[f"settled_{unit}"] + row[f"reserved_{unit}"]
                assert kept == self.used((account, period), unit), f"{account} {period} {unit}"


@pytest.fixture
def machine(database_url: str) -> Iterator[type[LedgerMachine]]:
    """On one database, which is emptied before each example."""
    clock = ResetClock(LATE)
    db = open_database(database_url, clock=clock)
    db.start()
    migrate(db)
    register(db, *map(card, AGENTS))
    yield type("Machine", (LedgerMachine,), {"db": db, "clock": clock})
    db.close()


def test_the_ledger_holds(machine: type[LedgerMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))
