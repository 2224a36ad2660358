"""Limits: how much an account may use in a period, and whether a call that is about to go out fits under all of them.

What is reserved counts like what is spent, so that the sum of both never passes a limit, whatever goes on at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from pilothouse.domain.calendars import Calendar

GLOBAL = "global"
RUN_AT = "run@"
KINDS = ("agent", "platform", "tenant", "tool", "user")
EACH = "*"

MOST = 2**52
"""What one limit or one call may come to: sums of a great many still fit into 64 bits."""


class Unit(StrEnum):
    """`actions` are calls of tools that change the world outside. `calls` (of tools) and `seconds` (of work) are limits
    of a run alone.
    """

    MICROUSD = "microusd"
    TOKENS = "tokens"
    ACTIONS = "actions"
    CALLS = "calls"
    SECONDS = "seconds"


class Period(StrEnum):
    RUN = "run"
    DAY = "day"
    MONTH = "month"


OF_A_RUN = frozenset({Unit.CALLS, Unit.SECONDS})


class Amounts(NamedTuple):
    """What a call uses, or may use at most."""

    microusd: int = 0
    tokens: int = 0
    actions: int = 0

    def plus(self, other: Amounts) -> Amounts:
        return Amounts(self.microusd + other.microusd, self.tokens + other.tokens, self.actions + other.actions)

    def minus(self, other: Amounts) -> Amounts:
        return Amounts(self.microusd - other.microusd, self.tokens - other.tokens, self.actions - other.actions)

    def of(self, unit: Unit) -> int:
        return int(getattr(self, unit))


NOTHING = Amounts()
COUNTED = (Unit.MICROUSD, Unit.TOKENS, Unit.ACTIONS)


class Balance(NamedTuple):
    """What an account has used in a period, and what is reserved for calls under way."""

    settled: Amounts = NOTHING
    reserved: Amounts = NOTHING

    def plus(self, change: Balance) -> Balance:
        return Balance(self.settled.plus(change.settled), self.reserved.plus(change.reserved))

    def used(self, unit: Unit) -> int:
        return self.settled.of(unit) + self.reserved.of(unit)


class Payer(NamedTuple):
    """Who uses something: each of these is an account."""

    run_id: str
    tenant: str
    agent: str
    user_id: str | None = None
    platform: str | None = None
    tool: str | None = None


class Pocket(NamedTuple):
    """An account in one period: `run`, or a day or a month such as 2026-11-21 and 2026-11."""

    account: str
    period: str


class Limit(NamedTuple):
    """`amount` None: an operator has lifted it."""

    scope: str
    period: Period
    unit: Unit
    amount: int | None


@dataclass(frozen=True, slots=True)
class Due:
    """A pocket that must have room, and the limit that applies to it."""

    pocket: Pocket
    limit: Limit


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit without room for a call. `is_contended`: what others have reserved may leave room once it is settled."""

    due: Due
    balance: Balance
    wanted: Amounts

    @property
    def free(self) -> int:
        """How much of the limit's unit there is room for."""
        unit = self.due.limit.unit
        return max(0, (self.due.limit.amount or 0) - self.balance.used(unit))

    @property
    def is_contended(self) -> bool:
        unit = self.due.limit.unit
        return self.balance.settled.of(unit) + self.wanted.of(unit) <= (self.due.limit.amount or 0)


@lru_cache(maxsize=1024)
def pockets_of(payer: Payer, day: str, month: str) -> tuple[Pocket, ...]:
    """Every pocket that an entry of this payer goes into."""
    days = (Pocket(account, period) for account in _accounts(payer) for period in (day, month))
    return Pocket(f"run:{payer.run_id}", Period.RUN), *days


def _accounts(payer: Payer) -> Iterator[str]:
    yield GLOBAL
    names = (payer.agent, payer.platform, payer.tenant, payer.tool, payer.user_id)
    yield from (f"{kind}:{name}" for kind, name in zip(KINDS, names, strict=True) if name is not None)


def scopes_of(payer: Payer) -> list[str]:
    """Every scope whose limits may apply to this payer."""
    kinds = [scope for account in _accounts(payer) for scope in _scopes(account)]
    return [*run_scopes(payer.run_id, payer.agent), *kinds]


def run_scopes(run_id: str, agent: str) -> tuple[str, ...]:
    """The scopes of a run's own limits, the closest first."""
    return f"run:{run_id}", RUN_AT + agent, "run:*"


def _scopes(account: str) -> tuple[str, ...]:
    kind, _, name = account.partition(":")
    return (account, f"{kind}:{EACH}") if name else (account,)


Limits = Mapping[tuple[str, Period, Unit], Limit]


def dues_of(payer: Payer, limits: Limits, day: str, month: str) -> list[Due]:
    """What applies to this payer; of several limits for a pocket and a unit the closest one."""
    limited, dues = {scope for scope, _, _ in limits}, list[Due]()
    run = Pocket(f"run:{payer.run_id}", Period.RUN)
    dues += _closest(run, Period.RUN, run_scopes(payer.run_id, payer.agent), limits)
    for account in _accounts(payer):
        scopes = _scopes(account)
        if limited.isdisjoint(scopes):
            continue  # most accounts have no limits
        for period, name in ((Period.DAY, day), (Period.MONTH, month)):
            dues += _closest(Pocket(account, name), period, scopes, limits)
    return dues


def _closest(pocket: Pocket, period: Period, scopes: Sequence[str], limits: Limits) -> Iterator[Due]:
    for unit in COUNTED:
        limit = next((found for scope in scopes if (found := limits.get((scope, period, unit)))), None)
        if limit is not None and limit.amount is not None:
            yield Due(pocket, limit)


def refusal_of(wanted: Amounts, dues: Iterable[Due], balances: Mapping[Pocket, Balance]) -> Refusal | None:
    """The limit that has the least room where one has too little."""
    refusals = []
    for due in dues:
        balance, unit = balances.get(due.pocket, Balance()), due.limit.unit
        assert due.limit.amount is not None
        if wanted.of(unit) > 0 and balance.used(unit) + wanted.of(unit) > due.limit.amount:
            refusals.append(Refusal(due, balance, wanted))
    return min(refusals, key=lambda each: (each.is_contended, each.free), default=None)


def free_share(dues: Iterable[Due], balances: Mapping[Pocket, Balance]) -> float:
    """How much of the tightest limit on money is left, from 1 (all of it) to 0."""
    shares = [1.0]
    for due in dues:
        amount = due.limit.amount
        if due.limit.unit is Unit.MICROUSD and due.limit.period is not Period.RUN and amount:
            shares.append(1 - balances.get(due.pocket, Balance()).used(Unit.MICROUSD) / amount)
    return max(0.0, min(shares))


def frees_at(period: Period, calendar: Calendar, now: int) -> int | None:
    """When a used-up limit has room again by itself: with the next day or month; never for a run."""
    match period:
        case Period.RUN:
            return None
        case Period.DAY:
            return calendar.next_day(now)
        case Period.MONTH:
            return calendar.next_month(now)


def account_prefix(scope: str) -> str:
    """What the name of a wait for room begins with, where a limit of this scope may be what is waited for."""
    if scope.startswith("run@"):
        return "run:"
    return scope.removesuffix(EACH) if scope.endswith(f":{EACH}") else f"{scope}/"


def show_amount(amount: int, unit: Unit) -> str:
    """For people."""
    if unit is not Unit.MICROUSD:
        return f"{amount:,} {unit if amount != 1 else unit.removesuffix('s')}"
    dollars = f"{amount / 1_000_000:,.6f}".rstrip("0")
    whole, _, cents = dollars.partition(".")
    return f"${whole}.{cents:0<2}"


def parse_scope(text: str) -> str:
    """The scope itself. Raises ValueError that says how to write one."""
    kind, separator, name = text.partition(":")
    run, at, agent = text.partition("@")
    if text == GLOBAL or (separator and name and kind in (*KINDS, "run")) or (run == "run" and at and agent):
        return text
    kinds = ", ".join(f"{each}:NAME" for each in KINDS)
    raise ValueError(f"{text!r} is no scope; write {GLOBAL}, {kinds}, run:ID, run@AGENT, or {EACH} for each of a kind")


def check_limit(limit: Limit) -> None:
    """Raises ValueError where a limit's period or unit does not go with its scope."""
    is_run = limit.scope.startswith(("run:", "run@"))
    if is_run != (limit.period is Period.RUN):
        wanted = "run" if is_run else "day or month"
        raise ValueError(f"the limit of {limit.scope} is per {wanted}, not per {limit.period}")
    if limit.unit in OF_A_RUN and not is_run:
        raise ValueError(f"a limit on {limit.unit} is for runs: run:*, run@AGENT or run:ID, not {limit.scope}")
    if limit.amount is not None and limit.amount < 0:
        raise ValueError(f"the amount is {limit.amount}; it must be 0 or more")
    if limit.amount is not None and limit.amount > MOST:
        raise ValueError(f"the amount is {limit.amount}; it must be at most {MOST}, or none")


def action_cap(scope: str, amount: int) -> Limit:
    """How many actions an account may make in a day. Raises ValueError that names the cap and what would fit."""
    if scope == f"tenant:{EACH}":
        raise ValueError("action_caps: the cap of every tenant is max_actions_per_day; set that in place of 'tenant:*'")
    cap = Limit(scope, Period.DAY, Unit.ACTIONS, amount)
    try:
        parse_scope(scope)
        check_limit(cap)
    except ValueError as error:
        raise ValueError(f"action_caps: {error}") from error
    return cap
