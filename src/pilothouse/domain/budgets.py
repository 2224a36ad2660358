"""Budgets: how a limit stands, how fast it is used, when it will be used up, and which command gives more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pilothouse.domain.limits import MOST, Period, Unit, show_amount
from pilothouse.errors import ReachedLimit

HOUR_US = 3_600_000_000
LEAST_ELAPSED_US = 60_000_000
"""A rate counts at least a minute, so that a period's first call does not look like a flood."""

LONGEST_US = 100 * 365 * 24 * HOUR_US

RUN = "run:"

OPTIONS: Mapping[Unit, str] = {
    Unit.MICROUSD: "usd",
    Unit.TOKENS: "tokens",
    Unit.ACTIONS: "actions",
    Unit.CALLS: "calls",
    Unit.SECONDS: "seconds",
}
"""What the command line calls each unit."""

MICROUSD = 1_000_000
LEAST_STEP = {Unit.MICROUSD: 10_000, Unit.TOKENS: 1000, Unit.SECONDS: 60}


class Level(StrEnum):
    """`low`: so little is left that smaller models are asked. `used_up`: nothing is left."""

    FINE = "fine"
    LOW = "low"
    USED_UP = "used_up"
    NO_LIMIT = "no_limit"


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a limit is used. `period` is `run`, or a day or a month by its name; `begins_at` and `ends_at` are
    its instants in microseconds, where it has any. `limit` None: there is none.
    """

    account: str
    period: str
    unit: Unit
    limit: int | None
    settled: int = 0
    reserved: int = 0
    begins_at: int | None = None
    ends_at: int | None = None

    @property
    def used(self) -> int:
        return self.settled + self.reserved

    @property
    def free(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)

    @property
    def used_share(self) -> float:
        """From 0 (nothing) to 1 (all of it) and beyond, where the limit was set below what was used."""
        if self.limit is None:
            return 0.0
        return self.used / self.limit if self.limit else 1.0

    def level(self, degrade_at: float) -> Level:
        if self.limit is None:
            return Level.NO_LIMIT
        if self.used >= self.limit:
            return Level.USED_UP
        return Level.LOW if 1 - self.used_share <= degrade_at else Level.FINE

    def burn_per_hour(self, now: int) -> float | None:
        """What was spent in an hour, on the average of the period so far."""
        if self.begins_at is None:
            return None
        elapsed = max(LEAST_ELAPSED_US, min(now, self.ends_at or now) - self.begins_at)
        return self.settled * HOUR_US / elapsed

    def exhausted_at(self, now: int) -> int | None:
        """When nothing is left if it goes on so; None where it will last until the period ends, or for ever."""
        rate, free = self.burn_per_hour(now), self.free
        if free is None or not rate:
            return now if free == 0 else None
        left = free * HOUR_US / rate
        ends_at = self.ends_at if self.ends_at is not None else now + LONGEST_US
        return None if free and now + left >= ends_at else now + int(left)


# --- what is said of a limit that was reached --------------------------------------------------------


class Hit(NamedTuple):
    """A limit that had no room for what was wanted, as it was then."""

    account: str
    period: str
    unit: Unit
    limit: int
    settled: int
    reserved: int
    wanted: int

    @property
    def is_own(self) -> bool:
        """Whether the limit is one that the run has for itself."""
        return self.account.startswith(RUN)

    @property
    def kind(self) -> Period:
        """What the limit is per."""
        if self.period == Period.RUN:
            return Period.RUN
        return Period.MONTH if len(self.period) == len("2026-11") else Period.DAY


_AMOUNT = r"(\$[\d,]+\.\d+|[\d,]+ [a-z]+)"
_HIT = re.compile(
    rf"the limit of (.+?)(?: for (\d{{4}}-\d\d(?:-\d\d)?))? is {_AMOUNT}: {_AMOUNT} spent, {_AMOUNT} reserved, "
    rf"and {_AMOUNT} wanted",
    re.DOTALL,
)


def tell_reached(reached: ReachedLimit) -> str:
    """The limit with its figures, and the command that raises it."""
    amounts = (reached.limit, reached.settled, reached.reserved, reached.wanted)
    hit = Hit(reached.account, reached.period, Unit(reached.unit), *amounts)
    return f"{tell_hit(hit)}; give more: `{command_for(hit)}`"


def tell_hit(hit: Hit) -> str:
    limit, settled, reserved, wanted = (show_amount(amount, hit.unit) for amount in hit[3:])
    when = "" if hit.period == Period.RUN else f" for {hit.period}"
    return f"the limit of {hit.account}{when} is {limit}: {settled} spent, {reserved} reserved, and {wanted} wanted"


def read_reached(text: str) -> Hit | None:
    """The limit that `tell_reached` told of, wherever in the text that is."""
    found = _HIT.search(text)
    if found is None:
        return None
    account, period, *amounts = found.groups()
    unit = _unit_of(amounts[0])
    return None if unit is None else Hit(account, period or Period.RUN, unit, *(_read_amount(each) for each in amounts))


_PART = r"\$?[\d,.]+(?: [a-z]+)?"
_TOLD = re.compile(
    rf"""the limit of (?P<account>(?:(?!the limit of )[^"<>\n])+?)(?: for \d{{4}}-\d\d(?:-\d\d)?)? is {_PART}"""
    rf"(?:: {_PART}(?: spent)?(?:, {_PART}(?: reserved)?(?:, and {_PART}(?: wanted)?)?)?)?"
)
_MORE = re.compile(r"""give more: `?pilothouse budget (?:\\.|[^`"<\n\\])*`?""")


def hide_shared(text: str, tenant: str) -> str:
    """A text, maybe a whole page, without what others have used: figures of limits that are neither a run's own nor the
    tenant's, also where the text was cut short.
    """

    def told(found: re.Match[str]) -> str:
        account = found["account"]
        is_own = account.startswith(RUN) or account == f"tenant:{tenant}"
        return found[0] if is_own else "a limit that is shared with others has no room"

    if "the limit of " not in text and "give more: " not in text:
        return text
    return _MORE.sub("ask who runs the platform for more", _TOLD.sub(told, text))


def _unit_of(amount: str) -> Unit | None:
    if amount.startswith("$"):
        return Unit.MICROUSD
    word = amount.rpartition(" ")[2]
    return next((unit for unit in Unit if word in (unit, unit.removesuffix("s"))), None)


def _read_amount(text: str) -> int:
    if text.startswith("$"):
        return int(Decimal(text[1:].replace(",", "")) * MICROUSD)
    return int(text.partition(" ")[0].replace(",", ""))


def command_for(hit: Hit) -> str:
    """The command that makes room for what was wanted and about as much again."""
    option, amount = OPTIONS[hit.unit], plain(room_for(hit), hit.unit)
    if hit.is_own:
        return f"pilothouse budget grant {shlex.quote(hit.account.removeprefix(RUN))} --{option} {amount}"
    return f"pilothouse budget set {shlex.quote(hit.account)} --{option} {amount} --per {hit.kind}"


def room_for(hit: Hit) -> int:
    """What makes room for what was wanted and about as much again: how much more to grant where the limit is the run's
    own, what to set the limit to where others share it.
    """
    used = 0 if hit.is_own else hit.settled + hit.reserved
    return _rounded_up(used + _step(hit), hit.unit)


def _step(hit: Hit) -> int:
    return max(2 * hit.wanted, hit.limit // 5, LEAST_STEP.get(hit.unit, 1))


def _rounded_up(amount: int, unit: Unit) -> int:
    """To two digits that count, and whole cents."""
    least = LEAST_STEP[unit] if unit is Unit.MICROUSD else 1
    grain = max(least, int(10 ** (len(str(amount)) - 2)))
    return -(-amount // grain) * grain


def plain(amount: int, unit: Unit) -> str:
    """As a command takes it: dollars for money, whole numbers for the rest."""
    if unit is not Unit.MICROUSD:
        return str(amount)
    return format(Decimal(amount) / MICROUSD, "f")


def parse_amount(text: str, unit: Unit) -> int | None:
    """What `plain` wrote; None for "none". Raises ValueError."""
    if text.strip().lower() == "none":
        return None
    wanted = "dollars such as 2.50" if unit is Unit.MICROUSD else "a whole number"
    try:
        amount = Decimal(text.strip().removeprefix("$").replace(",", "").replace("_", ""))
        scaled = amount * MICROUSD if unit is Unit.MICROUSD else amount
        if not scaled.is_finite() or scaled != scaled.to_integral_value() or not 0 <= scaled <= MOST:
            raise ValueError
    except (ArithmeticError, ValueError):
        raise ValueError(f"{text!r} is no amount; write {wanted}, or none") from None
    return int(scaled)


def read_wait(name: str) -> tuple[str, str, Unit] | None:
    """Account, period and unit of the limit that a run waits for, by the name of its wait."""
    parts = name.rpartition("@")[0].rsplit("/", 2)
    return None if len(parts) != 3 or parts[2] not in set(Unit) else (parts[0], parts[1], Unit(parts[2]))
