"""How the choice of a model went: what the calls of one question to a route say about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

RoutingOutcome = Literal["primary", "fallback", "degraded", "cached", "failed"]


class Asked(Protocol):
    """One call of a model, as far as the choice is concerned."""

    @property
    def route(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def outcome(self) -> str: ...


class Routing(NamedTuple):
    """The route that was asked first, and how it ended there.

    `primary`: its first model answered. `fallback`: another of its models did. `degraded`: another route's did.
    `cached`: an answer that was kept. `failed`: none.
    """

    route: str
    outcome: RoutingOutcome


def routing_of(calls: Sequence[Asked]) -> Routing:
    """The choice that the calls of one question, in their order, tell of. There is one call at least."""
    route, last = calls[0].route, calls[-1]
    match last.outcome:
        case "cached":
            return Routing(route, "cached")
        case "answered" if last.route != route:
            return Routing(route, "degraded")
        case "answered":
            return Routing(route, "primary" if last.model == calls[0].model else "fallback")
    return Routing(route, "failed")
