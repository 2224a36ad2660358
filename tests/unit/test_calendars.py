"""Days and months in time zones: from midnight to midnight, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.domain.calendars import Calendar

HOUR_US = 3_600_000_000
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Africa/Cairo",
)


def us(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Paris", "2026-03-29", 23),
        ("Europe/Paris", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Asia/Kolkata", "2026-03-29", 24),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("America/Havana", "2026-03-08", 23),
        ("America/Havana", "2026-11-01", 25),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Sao_Paulo", "2018-02-17", 25),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone: str, day: str, hours: float) -> None:
    calendar = Calendar(zone)
    first = calendar.next_day(us(f"{date.fromisoformat(day) - timedelta(days=1)}T12:00", zone))
    after = calendar.next_day(first)

    assert calendar.day(first) == day
    assert calendar.day(first - 1) < day
    assert after - first == hours * HOUR_US
    assert {calendar.day(first + int(hours * HOUR_US) * part // 97) for part in range(97)} == {day}


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("2026-01-31", "2026-02-01"),
        ("2028-02-29", "2028-03-01"),
        ("2027-02-28", "2027-03-01"),
        ("2026-12-31", "2027-01-01"),
    ],
)
def test_a_month_ends_with_its_last_day(zone: str, last: str, first: str) -> None:
    calendar, late = Calendar(zone), us(f"{last}T23:59:59.999999", zone)

    assert (calendar.day(late), calendar.month(late)) == (last, last[:7])
    assert calendar.next_month(late) == calendar.next_day(late) == late + 1 == us(first, zone)
    assert (calendar.day(late + 1), calendar.month(late + 1)) == (first, first[:7])


def test_a_leap_day_is_a_day() -> None:
    calendar = Calendar("Europe/Paris")

    assert calendar.day(calendar.next_day(us("2028-02-28T08:00", "Europe/Paris"))) == "2028-02-29"
    assert calendar.month(calendar.next_month(us("2028-02-29T08:00", "Europe/Paris"))) == "2028-03"


def test_a_day_that_a_zone_left_out_is_left_out() -> None:
    calendar = Calendar("Pacific/Apia")  # which went from the 29th of December 2011 to the 31st

    assert calendar.day(calendar.next_day(us("2011-12-29T12:00", "Pacific/Apia"))) == "2011-12-31"


@given(
    zone=st.sampled_from(ZONES),
    at=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001 - made UTC below
)
@example(zone="Europe/Paris", at=datetime(2026, 10, 25, 0, 59, 59, 999999))  # noqa: DTZ001
@example(zone="America/Havana", at=datetime(2026, 11, 1, 4, 30))  # noqa: DTZ001
def test_the_next_day_and_month_begin_where_the_ones_before_end(zone: str, at: datetime) -> None:
    calendar, now = Calendar(zone), us(at.isoformat())
    tomorrow, next_month = calendar.next_day(now), calendar.next_month(now)

    assert now < tomorrow <= next_month
    assert calendar.day(tomorrow - 1) == calendar.day(now) < calendar.day(tomorrow)
    assert calendar.month(next_month - 1) == calendar.month(now) < calendar.month(next_month)
    assert calendar.day(now).startswith(calendar.month(now))
    assert tomorrow - now <= 25 * HOUR_US
    told = datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(ZoneInfo(zone))
    assert calendar.day(now) == told.date().isoformat()


@pytest.mark.parametrize("name", ["", "Paris", "Europe/Nowhere", "../etc/passwd"])
def test_a_zone_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        Calendar(name)
