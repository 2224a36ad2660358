"""Days and months as budgets count them: from midnight to midnight in one time zone, clock changes included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendar of an IANA time zone. Instants are microseconds since 1970 in UTC."""

    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no time zone {self.timezone!r}; write one such as Europe/Paris") from None

    def day(self, at: int) -> str:
        """Such as 2026-11-21."""
        return self._local(at).date().isoformat()

    def month(self, at: int) -> str:
        """Such as 2026-11."""
        return month_of(self.day(at))

    def next_day(self, at: int) -> int:
        """The instant at which the next day begins."""
        return self._midnight(self._local(at).date() + timedelta(days=1))

    def next_month(self, at: int) -> int:
        """The instant at which the next month begins."""
        first = self._local(at).date().replace(day=1)
        return self._midnight((first + timedelta(days=32)).replace(day=1))

    def bounds(self, period: str) -> tuple[int, int]:
        """The instants at which a day such as 2026-11-21, or a month such as 2026-11, begins and ends."""
        is_month = len(period) == len("2026-11")
        first = date.fromisoformat(f"{period}-01" if is_month else period)
        begins = self._midnight(first)
        return begins, self.next_month(begins) if is_month else self.next_day(begins)

    def _local(self, at: int) -> datetime:
        return (EPOCH + timedelta(microseconds=at)).astimezone(_zone(self.timezone))

    def _midnight(self, day: date) -> int:
        instant = datetime.combine(day, time.min, tzinfo=_zone(self.timezone))
        return (instant.astimezone(UTC) - EPOCH) // MICROSECOND


def month_of(day: str) -> str:
    """2026-11 of 2026-11-21."""
    return day[: len("2026-11")]


@lru_cache(maxsize=16)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


UTC_CALENDAR = Calendar()
