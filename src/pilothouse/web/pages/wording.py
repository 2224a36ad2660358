"""How values read on a page: numbers with their units, spans of time, money, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from pilothouse.clock import SystemClock, from_datetime, isoformat

SHOWN_CHARACTERS = 20_000
"""Of one value; the rest is behind a link."""

NONE = "\N{EN DASH}"
_clock = SystemClock()
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What would change how the text around it is read: it is shown as a mark instead."""


def pretty(value: Any) -> str:
    """A value as indented JSON; a text as it is."""
    if isinstance(value, str):
        return plain(value)
    return plain(_indented(value))


def _indented(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode()


def editable(value: Any) -> str:
    """A value as indented JSON that says the same when it is read again: what steers how it is shown is escaped."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", _indented(value))


def brief(value: Any, characters: int = 90) -> str:
    """The beginning of a value on one line."""
    if value is None:
        return NONE
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    return plain(cut(" ".join(text.split()), characters))


def plain(text: str) -> str:
    """A text without characters that steer how it is shown."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def cut(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"


def span(seconds: float | None) -> str:
    """A length of time in the one or two units that read best; none at all where clocks differ and it is negative."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    for size, unit, small, small_unit in ((3600, "min", 60, "s"), (172_800, "h", 3600, "min")):
        if seconds < size:
            whole, rest = divmod(int(seconds), small)
            return f"{whole} {unit} {rest if unit == 'min' else rest // 60} {small_unit}"
    return f"{seconds / 86_400:.1f} d"


def span_us(microseconds: float | None) -> str:
    return span(None if microseconds is None else microseconds / 1_000_000)


def usd(microusd: float | None) -> str:
    """Micro-dollars as dollars, with as many digits as say something."""
    if microusd is None:
        return NONE
    dollars = microusd / 1_000_000
    return f"${dollars:,.2f}" if not microusd or abs(microusd) >= 10_000 else f"${dollars:.6f}".rstrip("0")


def count(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def share(part: float | None) -> str:
    return NONE if part is None else f"{part:.0%}" if part in (0, 1) else f"{part:.1%}"


def size(octets: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def short_id(id: str) -> str:
    """The end of an id, where ids of one moment differ."""
    return id if len(id) <= 16 else f"{id[:8]}…{id[-6:]}"


def instant(value: str | int | None) -> str:
    """ISO 8601; from microseconds too."""
    if value is None:
        return ""
    return isoformat(value) if isinstance(value, int) else value


def utc(value: str | int | None) -> str:
    """What is read where no script turns it into the viewer's own time."""
    text = instant(value)
    return f"{text[:10]} {text[11:19]} UTC" if text else ""


def now() -> str:
    """The instant that it is here."""
    return instant(_clock.now_us())


def ago(value: str | int | None) -> str:
    """How far an instant is away."""
    text = instant(value)
    if not text:
        return ""
    seconds = (from_datetime(datetime.fromisoformat(text)) - _clock.now_us()) / 1_000_000
    length = abs(seconds)
    if length < 1:
        return "now"
    told = f"{length:.0f} s" if length < 60 else " ".join(span(length).split(" ")[:2])
    return f"in {told}" if seconds > 0 else f"{told} ago"


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def percent(part: float, whole: float | None) -> float:
    """How much of a bar is full: 0 to 100."""
    return 0.0 if not whole else round(max(0.0, min(100.0, 100 * part / whole)), 2)


def chart(facts: Mapping[str, Any]) -> str:
    """What a chart shows, for the script that draws it."""
    return orjson.dumps(facts).decode()


FILTERS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        pretty,
        brief,
        plain,
        cut,
        span,
        span_us,
        usd,
        count,
        share,
        size,
        short_id,
        instant,
        utc,
        ago,
        sentence,
        percent,
        chart,
    )
}
