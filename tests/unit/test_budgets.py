"""How limits stand, what is said of them, and which commands give more."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.budgets import (
    HOUR_US,
    OPTIONS,
    Hit,
    Level,
    Standing,
    command_for,
    hide_shared,
    parse_amount,
    plain,
    read_reached,
    read_wait,
    tell_reached,
)
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.limits import Period, Unit
from pilothouse.errors import ReachedLimit

AMOUNTS = st.integers(0, 10**15)
NAMES = st.from_regex(r"[a-z][a-z0-9 '@./-]{0,20}[a-z]", fullmatch=True).filter(lambda name: " is " not in name)
PERIODS = st.sampled_from(["run", "2026-11-21", "2026-11"])
DAY_US = 24 * HOUR_US


@st.composite
def reached(draw: st.DrawFn) -> ReachedLimit:
    period = draw(PERIODS)
    account = f"run:{draw(NAMES)}" if period == "run" else f"{draw(st.sampled_from(['user', 'agent']))}:{draw(NAMES)}"
    unit = draw(st.sampled_from(list(Unit)))
    limit, settled, reserved, wanted = draw(AMOUNTS), draw(AMOUNTS), draw(AMOUNTS), draw(st.integers(1, 10**12))
    return ReachedLimit(account, account, period, unit, limit, settled, reserved, wanted, False, None, 1)


@given(reached())
def test_what_is_told_of_a_limit_can_be_read_again(limit: ReachedLimit) -> None:
    hit = read_reached(f"before: {tell_reached(limit)}")

    assert hit == (
        limit.account, limit.period, limit.unit, limit.limit, limit.settled, limit.reserved, limit.wanted
    )  # fmt: skip


@given(reached(), st.integers(1, 200))
def test_figures_of_others_are_hidden_however_a_text_is_cut(limit: ReachedLimit, cut: int) -> None:
    text = tell_reached(limit)
    kept = text[: text.index(" is ") + len(" is $") + cut]

    shown = hide_shared(json.dumps({"told": kept, "other": "the limit of patience"}, separators=(",", ":")), "acme")

    if limit.period == "run":
        assert f"{shown}x"[9:].startswith(kept.partition("; give more")[0])
    else:
        assert not re.search(r"\d", shown.replace(limit.account, "")), shown
    assert shown.endswith('","other":"the limit of patience"}')
    own = tell_reached(replace(limit, account="tenant:acme", period="2026-11")).partition("; ")[0]
    assert hide_shared(own, "acme") == own != hide_shared(own, "zed")


@given(reached())
def test_the_command_that_is_told_makes_room(limit: ReachedLimit) -> None:
    hit = Hit(limit.account, limit.period, Unit(limit.unit), limit.limit, limit.settled, limit.reserved, limit.wanted)
    words = shlex.split(command_for(hit))

    option = words.index(f"--{OPTIONS[hit.unit]}")
    amount = parse_amount(words[option + 1], hit.unit)
    assert amount is not None
    if hit.period == "run":
        assert words[:4] == ["pilothouse", "budget", "grant", hit.account.removeprefix("run:")]
        assert amount >= hit.wanted
    else:
        assert words[:4] == ["pilothouse", "budget", "set", hit.account]
        assert amount >= hit.settled + hit.reserved + hit.wanted
        assert words[-1] == ("month" if hit.period == "2026-11" else "day")


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_failure(text: str) -> None:
    assert read_reached(text) is None or "the limit of" in text


@given(AMOUNTS, st.sampled_from(list(Unit)))
def test_amounts_are_written_as_they_are_read(amount: int, unit: Unit) -> None:
    assert parse_amount(plain(amount, unit), unit) == amount


@pytest.mark.parametrize("text", ["", "x", "1.5.2", "-1", "nan", "inf", "1e30", "0.0000001"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text)) + " is no amount; write dollars such as 2.50, or none"):
        parse_amount(text, Unit.MICROUSD)


def test_amounts_may_have_signs_that_people_write() -> None:
    assert parse_amount("$1,250.5", Unit.MICROUSD) == 1_250_500_000
    assert parse_amount("10_000", Unit.TOKENS) == 10_000
    assert parse_amount("none", Unit.TOKENS) is None


# --- forecasts -------------------------------------------------------------------------------------


@given(st.integers(1, 10**12), st.integers(0, 10**12), st.integers(0, 10**11), st.integers(60_000_000, DAY_US - 1))
def test_a_forecast_is_when_the_rate_so_far_uses_up_what_is_left(
    limit: int, settled: int, reserved: int, elapsed: int
) -> None:
    standing = Standing("global", "2026-11-21", Unit.MICROUSD, limit, settled, reserved, 0, DAY_US)

    at, rate, free = standing.exhausted_at(elapsed), standing.burn_per_hour(elapsed), standing.free
    assert free is not None
    assert rate is not None
    by_the_end = free - rate * (DAY_US - elapsed) / HOUR_US
    if at is None:
        assert by_the_end >= -1
    else:
        assert elapsed <= at <= DAY_US
        assert free - rate * (at - elapsed) / HOUR_US <= rate / HOUR_US + 1
        assert free == 0 or by_the_end <= 1


def test_what_was_never_used_is_never_used_up() -> None:
    assert Standing("global", "2026-11-21", Unit.TOKENS, 5, 0, 0, 0, DAY_US).exhausted_at(HOUR_US) is None
    assert Standing("global", "2026-11-21", Unit.TOKENS, 0, 0, 0, 0, DAY_US).exhausted_at(HOUR_US) == HOUR_US
    assert Standing("run:x", "run", Unit.TOKENS, 2**52, 1, 0, 0).exhausted_at(HOUR_US) is None


@pytest.mark.parametrize(
    ("limit", "used", "level"),
    [
        (None, 5, Level.NO_LIMIT),
        (100, 0, Level.FINE),
        (100, 89, Level.FINE),
        (100, 90, Level.LOW),
        (100, 100, Level.USED_UP),
        (100, 150, Level.USED_UP),
        (0, 0, Level.USED_UP),
    ],
)
def test_how_a_limit_stands(limit: int | None, used: int, level: Level) -> None:
    assert Standing("global", "2026-11", Unit.MICROUSD, limit, used).level(0.1) is level


@given(st.integers(0, 4 * 10**15), st.sampled_from(["UTC", "Europe/Paris", "America/St_Johns", "Pacific/Apia"]))
def test_an_instant_lies_within_its_day_and_its_month(at: int, zone: str) -> None:
    calendar = Calendar(zone)

    for name, following in ((calendar.day(at), calendar.next_day(at)), (calendar.month(at), calendar.next_month(at))):
        begins_at, ends_at = calendar.bounds(name)
        assert begins_at <= at < ends_at == following


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("tenant:a/b/2026-11-21/actions@7", ("tenant:a/b", "2026-11-21", Unit.ACTIONS)),
        ("run:x/run/calls@0", ("run:x", Period.RUN, Unit.CALLS)),
        ("nothing", None),
        ("a/b/c@1", None),
    ],
)
def test_the_name_of_a_wait_says_what_it_is_for(name: str, read: object) -> None:
    assert read_wait(name) == read
