"""What providers say of their limits in the headers of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pilothouse.clock import parse_isoformat

FAMILIES = (
    ("x-ratelimit-remaining-{unit}", "x-ratelimit-reset-{unit}"),
    ("anthropic-ratelimit-{unit}-remaining", "anthropic-ratelimit-{unit}-reset"),
)
UNITS = ("requests", "tokens", "input-tokens", "output-tokens")
LONGEST_SECONDS = 300.0

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def blocked_seconds(headers: Mapping[str, str], now_us: int) -> float | None:
    """How long nothing more will be taken, where the headers say that something is used up; at most five minutes.

    OpenAI writes durations (`1m30.5s`), Anthropic instants.
    """
    waits = [wait for wait in _waits(headers, now_us) if wait is not None]
    return min(LONGEST_SECONDS, max(waits)) if waits else None


def _waits(headers: Mapping[str, str], now_us: int) -> Iterator[float | None]:
    for remaining, reset in FAMILIES:
        for unit in UNITS:
            if headers.get(remaining.format(unit=unit)) == "0":
                yield _seconds(headers.get(reset.format(unit=unit), ""), now_us)


def _seconds(text: str, now_us: int) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    instant = parse_isoformat(text)
    return None if instant is None else max(0.0, (instant - now_us) / 1_000_000)
