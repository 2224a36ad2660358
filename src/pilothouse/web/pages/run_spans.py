"""The waterfall of a run as a page draws it: where each bar begins and how long it is, and what its line says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pilothouse.clock import from_datetime

WIDTH = 1000.0
"""Of the drawing, in its own units."""

LEAST_WIDTH = 3.0
SHOWN = 400
DEEPEST = 6
IDLE = ("queue", "wait", "approval")
MOSTLY = 0.8
"""Waits that take more than this share of a run are drawn shorter, or nothing else would be seen."""

SHORTENED = 0.12
"""How long a wait is then drawn at most, as a share of the work."""

PARTS: Mapping[str, tuple[str, str]] = {
    "queue": ("in the queue", "pale"),
    "backoff": ("back-off before a retry", "amber"),
    "people": ("waiting for people", "violet"),
    "signal": ("waiting for a signal", "violet"),
    "timer": ("sleeping", "dim"),
    "child": ("waiting for children", "pink"),
    "hold": ("held back by a switch or limit", "red"),
    "model": ("models", "blue"),
    "tool": ("tools", "teal"),
    "step": ("steps", "green"),
    "code": ("the agent's own code", "ink"),
}
"""What a part of the time is called, and its tone."""

TONES = {"queue": "pale", "wait": "dim", "approval": "violet", "model": "blue", "tool": "teal", "step": "green"}
TONES |= {"effect": "amber", "child": "pink", "attempt": "ink"}
BAD = ("failed", "lost", "unknown", "denied", "rejected")


def drawn(found: Mapping[str, Any], *, is_true_to_time: bool) -> dict[str, Any]:
    """The lines of a waterfall, as `control.waterfall` tells it."""
    spans = found["spans"]
    start, now = _us(found["started_at"]), _us(found["now"])
    tops = [(_us(each["started_at"]), _end(each, now), each["kind"] in IDLE) for each in spans if each["depth"] == 0]
    idle = sum(end - begin for begin, end, is_idle in tops if is_idle)
    total = max(1, found["total_us"])
    can_shorten = idle > MOSTLY * total and idle < total
    at = _axis(start, tops, work=total - idle if can_shorten and not is_true_to_time else None)
    lines = [_line(place, span, at, now) for place, span in enumerate(spans[:SHOWN])]
    parents = {span["parent"] for span in spans}
    for line in lines:
        line["has_below"] = line["place"] in parents
    return {
        "lines": lines,
        "more": max(0, len(spans) - SHOWN),
        "is_cut": found["is_cut"],
        "can_shorten": can_shorten,
        "is_shortened": can_shorten and not is_true_to_time,
        "ticks": [] if can_shorten and not is_true_to_time else [total * each / 4 for each in range(5)],
    }


def _axis(start: int, tops: Sequence[tuple[int, int, bool]], *, work: int | None) -> Callable[[int], float]:
    """Where an instant lies on the drawing. `work`: waits are drawn shorter, by so many microseconds of other time."""
    times, places = [start], [0.0]
    for begin, ended, is_idle in tops:
        end = max(ended, times[-1])
        length = end - times[-1]
        is_short = work is not None and is_idle and begin <= times[-1]
        times.append(end)
        places.append(places[-1] + (min(length, SHORTENED * (work or 0)) if is_short else length))
    scale = WIDTH / (places[-1] or 1)

    def at(instant: int) -> float:
        place = max(1, min(bisect_right(times, instant), len(times) - 1)) if len(times) > 1 else 0
        if not place:
            return 0.0
        before, after = times[place - 1], times[place]
        share = 0.0 if after == before else max(0.0, min(1.0, (instant - before) / (after - before)))
        return (places[place - 1] + share * (places[place] - places[place - 1])) * scale

    return at


def _line(place: int, span: Mapping[str, Any], at: Callable[[int], float], now: int) -> dict[str, Any]:
    begin, end = _us(span["started_at"]), _end(span, now)
    x = min(at(begin), WIDTH - LEAST_WIDTH)
    is_bad = span["state"] in BAD
    return {
        **span,
        "place": place,
        "x": round(x, 1),
        "width": round(max(LEAST_WIDTH, at(end) - x), 1),
        "label": {"queue": "for a worker", "attempt": str(span["attempt"])}.get(span["kind"], span["name"]),
        "took": (end - begin) / 1_000_000,
        "level": min(span["depth"], DEEPEST),
        "tone": "red" if is_bad else TONES[span["kind"]],
        "is_bad": is_bad,
        "is_open": span["ended_at"] is None,
    }


def time_parts(where: Mapping[str, int], total_us: int) -> list[dict[str, Any]]:
    """The parts of a run's time, the longest first, with their places on a bar from 0 to 100."""
    total = max(1, total_us)
    parts, x = [], 0.0
    for part, microseconds in sorted(where.items(), key=lambda item: -item[1]):
        name, tone = PARTS[part]
        width = 100 * microseconds / total
        share = microseconds / total
        parts.append({"name": name, "tone": tone, "us": microseconds, "share": share, "x": x, "width": width})
        x += width
    return parts


def _end(span: Mapping[str, Any], now: int) -> int:
    return max(_us(span["started_at"]), now if span["ended_at"] is None else _us(span["ended_at"]))


def _us(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text))
