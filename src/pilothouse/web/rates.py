"""Limits on how many requests each caller may make of a route; counted by each API process for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from pilothouse.clock import SystemClock
from pilothouse.domain.rates import RateLimit, admit
from pilothouse.errors import RateLimited
from pilothouse.web.access import LOCAL, OPEN_PATHS
from pilothouse.web.problems import Problem

MAX_CALLERS = 10_000
"""Callers that are remembered; beyond it those whose requests have all become due are forgotten."""

_clock = SystemClock()


class Rates:
    """Answers 429 to who asks too often. The first limit that covers a request counts, for each API key by itself;
    without keys, for each address.
    """

    def __init__(self, app: ASGIApp, limits: Sequence[RateLimit]) -> None:
        self._app = app
        self._limits = limits
        self._due: dict[tuple[RateLimit, str], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem.response(scope["path"])(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        method, path = scope["method"], scope["path"]
        limit = next((limit for limit in self._limits if limit.covers(method, path)), None)
        if limit is None or path in OPEN_PATHS:
            return None
        caller, now = _name_of(scope), _clock.monotonic()
        due, wait = admit(limit, self._due.get((limit, caller), 0.0), now)
        self._due[limit, caller] = due
        if len(self._due) > MAX_CALLERS:
            self._due = {key: due for key, due in self._due.items() if due > now}
        return None if wait == 0.0 else _too_many(limit, caller, wait)


def _name_of(scope: Scope) -> str:
    caller = scope["pilothouse.caller"]
    if caller is LOCAL and scope.get("client"):
        return str(scope["client"][0])
    return str(caller.principal)


def _too_many(limit: RateLimit, caller: str, wait: float) -> Problem:
    seconds = math.ceil(wait)
    told = f"{caller} asks too often: the limit is {limit}; try again in {seconds} s, or raise it in rate_limits"
    return Problem(429, RateLimited.code, told, headers={"Retry-After": str(seconds)})
