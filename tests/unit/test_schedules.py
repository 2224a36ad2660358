"""Which instants a schedule has, clock changes included, and which of them fire."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.clock import from_datetime, to_datetime
from pilothouse.control.schedules import ScheduleCard, check_card, instants
from pilothouse.domain.schedules import GRACE_SECONDS, CatchUp, choose_fires
from pilothouse.errors import ConfigError

ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
GRACE_US = int(GRACE_SECONDS * 1_000_000)


def fires(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    last = from_datetime(end)
    found = takewhile(lambda instant: instant < last, instants(cron, zone, from_datetime(start)))
    return [to_datetime(instant).astimezone(ZoneInfo(zone)) for instant in found]


@given(st.sampled_from(ZONES), st.integers(0, 23), st.integers(0, 59), st.integers(2024, 2035))
def test_a_daily_schedule_fires_once_on_every_day_whatever_the_clocks_do(
    zone: str, hour: int, minute: int, year: int
) -> None:
    start = datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    found = fires(f"{minute} {hour} * * *", zone, start, datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone)))

    per_day = Counter(moment.date() for moment in found)
    assert set(per_day.values()) == {1}
    assert len(per_day) in (365, 366)


@given(st.sampled_from(ZONES), st.integers(0, 59), st.integers(1_704_067_200, 2_019_686_400))
def test_an_hourly_schedule_follows_the_time_that_passes(zone: str, minute: int, start: int) -> None:
    """Where a change is of whole hours; at Lord Howe's half hour the minute of the clock comes twice, or late."""
    found = list(islice(instants(f"{minute} * * * *", zone, start * 1_000_000), 50))

    gaps = {later - earlier for earlier, later in pairwise(found)}
    hour = 3_600_000_000
    assert gaps == {hour} or (zone == "Australia/Lord_Howe" and max(gaps) <= 2 * hour and min(gaps) > 0)


def test_a_time_that_is_skipped_fires_right_after_and_one_that_is_repeated_fires_once() -> None:
    assert [str(moment) for moment in fires_of_a_day(3, 29)] == ["2026-03-29 03:00:00+02:00"]
    assert [str(moment) for moment in fires_of_a_day(10, 25)] == ["2026-10-25 02:30:00+02:00"]


def fires_of_a_day(month: int, day: int) -> list[datetime]:
    start = datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Paris"))
    return fires("30 2 * * *", "Europe/Paris", start, start + timedelta(hours=20))


due_lists = st.lists(st.integers(0, 10**10), min_size=1, max_size=30, unique=True).map(sorted)


@given(due_lists, st.integers(0, 2 * 10**8), st.sampled_from(CatchUp), st.integers(1, 10))
def test_what_fires_is_a_tail_of_what_is_due(due: list[int], late: int, catch_up: CatchUp, limit: int) -> None:
    now = due[-1] + late
    chosen = choose_fires(due, now, catch_up, limit)

    assert list(chosen.fires) == due[len(due) - len(chosen.fires) :]
    assert len(chosen.fires) + chosen.dropped == len(due)
    match catch_up:
        case CatchUp.NONE:
            assert all(instant >= now - GRACE_US for instant in chosen.fires)
        case CatchUp.ONE:
            assert chosen.fires
        case CatchUp.ALL:
            assert len(chosen.fires) == min(limit, len(due))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cron": "99 * * * *"}, "cron '99"),
        ({"cron": "daily"}, "five fields"),
        ({"cron": "* * */20 * 1L"}, "never fires"),
        ({"cron": "0 0 31 2 *"}, "Bad day-of-month"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus'"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"catch_up_limit": 0}, "catch_up_limit is 0"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    card = ScheduleCard(**({"name": "nightly", "agent": "a", "cron": "0 2 * * *"} | changes))  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="schedule 'nightly'") as raised:
        check_card(card)
    assert told in str(raised.value)
