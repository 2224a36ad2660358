"""Rates of requests: what a limit says, and whether one more request keeps to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNIT_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}

_LIMIT = re.compile(r"(?P<method>[A-Z]+|\*) (?P<path>/\S*?\*?|\*)=(?P<count>[1-9]\d*)/(?P<unit>s|min|h)")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`count` requests per `seconds` on one route, all of them at once if need be. `*` stands for any method or path,
    and at the end of a path for any rest of it.
    """

    method: str
    path: str
    count: int
    seconds: float

    def covers(self, method: str, path: str) -> bool:
        if self.method not in ("*", method):
            return False
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path

    @property
    def interval_seconds(self) -> float:
        return self.seconds / self.count

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in UNIT_SECONDS.items() if seconds == self.seconds)
        return f"{self.method} {self.path}={self.count}/{unit}"


def parse_rate_limits(text: str) -> tuple[RateLimit, ...]:
    """Reads `POST /api/v1/runs=100/s, GET *=50/s`. Raises ValueError that names the part that does not fit."""
    limits = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _LIMIT.fullmatch(part)
        if found is None:
            raise ValueError(f"{part!r} is not METHOD PATH=COUNT/UNIT, such as POST /api/v1/runs=100/s (s, min or h)")
        limits.append(RateLimit(found["method"], found["path"], int(found["count"]), UNIT_SECONDS[found["unit"]]))
    return tuple(limits)


def admit(limit: RateLimit, due: float, now: float) -> tuple[float, float]:
    """Whether one more request keeps to a limit: the generic cell rate algorithm (ITU-T I.371, virtual scheduling).

    `due` is the instant, in seconds, at which the next request would be due if all came evenly; of a new caller it is
    0. Returns the new `due`, and how many seconds to wait: 0 for a request that is let through.
    """
    wait = due - now - (limit.seconds - limit.interval_seconds)
    if wait > 1e-9:
        return due, wait
    return max(due, now) + limit.interval_seconds, 0.0
