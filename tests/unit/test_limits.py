"""What a call may use under several limits: which apply, what is refused and why, and what limits may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.calendars import UTC_CALENDAR
from pilothouse.domain.limits import (
    COUNTED,
    Amounts,
    Balance,
    Due,
    Limit,
    Limits,
    Payer,
    Period,
    Pocket,
    Unit,
    account_prefix,
    check_limit,
    dues_of,
    free_share,
    frees_at,
    parse_scope,
    pockets_of,
    refusal_of,
    scopes_of,
    show_amount,
)

DAY, MONTH = "2026-11-21", "2026-11"
PAYER = Payer("r1", "acme", "triage", "bob", "openai", "mail")


def table(*limits: Limit) -> Limits:
    return {(limit.scope, limit.period, limit.unit): limit for limit in limits}


def money(scope: str, amount: int | None, period: Period = Period.DAY) -> Limit:
    return Limit(scope, period, Unit.MICROUSD, amount)


def test_an_entry_goes_into_every_account_of_its_payer() -> None:
    accounts = ("global", "agent:triage", "platform:openai", "tenant:acme", "tool:mail", "user:bob")

    expected = {Pocket("run:r1", "run"), *(Pocket(each, period) for each in accounts for period in (DAY, MONTH))}
    assert set(pockets_of(PAYER, DAY, MONTH)) == expected
    assert set(pockets_of(Payer("r1", "acme", "triage"), DAY, MONTH)) < expected


@pytest.mark.parametrize(
    ("limits", "amount"),
    [
        ([money("tenant:*", 5)], 5),
        ([money("tenant:*", 5), money("tenant:acme", 9)], 9),
        ([money("tenant:*", 5), money("tenant:acme", None)], None),
        ([money("tenant:other", 5)], None),
        ([money("run:*", 5, Period.RUN), money("run@triage", 4, Period.RUN)], 4),
        ([money("run@triage", 4, Period.RUN), money("run:r1", 8, Period.RUN)], 8),
        ([money("run@other", 4, Period.RUN)], None),
        ([money("global", 3, Period.MONTH)], 3),
    ],
)
def test_the_closest_limit_applies(limits: list[Limit], amount: int | None) -> None:
    dues = dues_of(PAYER, table(*limits), DAY, MONTH)

    assert [due.limit.amount for due in dues] == ([] if amount is None else [amount])
    assert {limit.scope for limit in limits} - set(scopes_of(PAYER)) <= {"tenant:other", "run@other"}


AMOUNTS = st.builds(Amounts, *[st.integers(0, 20)] * 3)
BALANCES = st.builds(Balance, AMOUNTS, AMOUNTS)
POCKETS = [Pocket("global", DAY), Pocket("global", MONTH), Pocket("run:r1", "run")]
DUES = st.lists(
    st.builds(
        lambda pocket, unit, amount: Due(pocket, Limit(pocket.account, Period.DAY, unit, amount)),
        st.sampled_from(POCKETS),
        st.sampled_from(COUNTED),
        st.integers(0, 40),
    ),
    max_size=6,
)


@given(wanted=AMOUNTS, dues=DUES, balances=st.fixed_dictionaries({}, optional=dict.fromkeys(POCKETS, BALANCES)))
def test_a_call_is_refused_exactly_where_a_limit_would_be_passed(
    wanted: Amounts, dues: list[Due], balances: dict[Pocket, Balance]
) -> None:
    refusal = refusal_of(wanted, dues, balances)

    passed = [due for due in dues if wanted.of(due.limit.unit) and lacks(due, balances, wanted)]
    if refusal is None:
        assert not passed
        return
    unit, limit = refusal.due.limit.unit, refusal.due.limit.amount
    assert limit is not None
    assert refusal.due in passed
    assert refusal.free < wanted.of(unit)
    assert refusal.free == max(0, limit - refusal.balance.used(unit))
    # Contended only where everything that stands in the way is held by others and may come back.
    without_held = {pocket: Balance(balance.settled) for pocket, balance in balances.items()}
    assert refusal.is_contended == (not any(lacks(due, without_held, wanted) for due in passed))


def lacks(due: Due, balances: dict[Pocket, Balance], wanted: Amounts) -> bool:
    unit, amount = due.limit.unit, due.limit.amount
    assert amount is not None
    return balances.get(due.pocket, Balance()).used(unit) + wanted.of(unit) > amount


def test_what_uses_nothing_is_never_refused() -> None:
    due = Due(POCKETS[0], money("global", 5))

    assert refusal_of(Amounts(), [due], {POCKETS[0]: Balance(Amounts(50))}) is None


def test_what_is_left_is_that_of_the_tightest_limit_on_money() -> None:
    dues = [
        Due(POCKETS[0], money("global", 100)),
        Due(POCKETS[1], money("global", 1000, Period.MONTH)),
        Due(POCKETS[0], Limit("global", Period.DAY, Unit.TOKENS, 1)),
        Due(POCKETS[2], money("run:*", 1, Period.RUN)),
    ]
    balances = {POCKETS[0]: Balance(Amounts(20, 9), Amounts(30)), POCKETS[1]: Balance(Amounts(100))}

    assert free_share(dues, balances) == pytest.approx(0.5)
    assert free_share(dues, {POCKETS[0]: Balance(Amounts(500))}) == 0
    assert free_share([], {}) == 1


def test_room_comes_back_with_the_next_period_and_never_for_a_run() -> None:
    noon = 1_795_262_400_000_000  # 2026-11-21T12:00Z

    assert UTC_CALENDAR.day(noon) == DAY
    assert frees_at(Period.RUN, UTC_CALENDAR, noon) is None
    assert frees_at(Period.DAY, UTC_CALENDAR, noon) == noon + 12 * 3_600_000_000
    assert frees_at(Period.MONTH, UTC_CALENDAR, noon) == noon + (9 * 24 + 12) * 3_600_000_000


@pytest.mark.parametrize(
    ("scope", "account", "is_meant"),
    [
        ("global", "global/2026-11-21/microusd@3", True),
        ("tenant:acme", "tenant:acme/2026-11-21/microusd@3", True),
        ("tenant:acme", "tenant:acme2/2026-11-21/microusd@3", False),
        ("tenant:*", "tenant:acme/2026-11-21/microusd@3", True),
        ("tenant:*", "user:acme/2026-11-21/microusd@3", False),
        ("run:*", "run:r1/run/calls@3", True),
        ("run@triage", "run:r1/run/calls@3", True),
        ("run:r1", "run:r1/run/calls@3", True),
        ("run:r1", "run:r11/run/calls@3", False),
    ],
)
def test_a_changed_limit_wakes_those_who_wait_under_it(scope: str, account: str, is_meant: bool) -> None:
    assert account.startswith(account_prefix(scope)) == is_meant


@pytest.mark.parametrize("text", ["global", "tenant:acme", "user:*", "run:r1", "run:*", "run@triage", "tool:a:b"])
def test_a_scope_is_taken_as_it_is(text: str) -> None:
    assert parse_scope(text) == text


@pytest.mark.parametrize("text", ["", "globe", "tenant:", "tenant", ":acme", "run@", "tenant@acme", "team:a"])
def test_a_scope_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="is no scope; write global, agent:NAME"):
        parse_scope(text)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (Limit("run:*", Period.DAY, Unit.MICROUSD, 1), "per run, not per day"),
        (Limit("global", Period.RUN, Unit.MICROUSD, 1), "per day or month, not per run"),
        (Limit("global", Period.DAY, Unit.CALLS, 1), "a limit on calls is for runs"),
        (Limit("tenant:a", Period.MONTH, Unit.SECONDS, 1), "a limit on seconds is for runs"),
        (Limit("global", Period.DAY, Unit.MICROUSD, -1), "it must be 0 or more"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(limit: Limit, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_limit(limit)


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        (0, Unit.MICROUSD, "$0.00"),
        (1, Unit.MICROUSD, "$0.000001"),
        (1_500_000, Unit.MICROUSD, "$1.50"),
        (1_234_567_890_000, Unit.MICROUSD, "$1,234,567.89"),
        (1, Unit.CALLS, "1 call"),
        (5_000_000, Unit.TOKENS, "5,000,000 tokens"),
    ],
)
def test_amounts_are_shown_for_people(amount: int, unit: Unit, shown: str) -> None:
    assert show_amount(amount, unit) == shown
