"""Context windows: what of a long conversation still goes to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Window:
    """How an agent's conversations are kept short. An exchange is an answer of the model and what followed on it.

    At most `steps` exchanges (None: any number) and about `max_tokens` tokens go to the model; the oldest leave first.
    The beginning, with the instructions and the first question, stays, and so does the latest exchange. `retain` names
    tools whose results stay. What leaves is summed up by the route `summarise`, where one is given.
    """

    steps: int | None = None
    max_tokens: int = 100_000
    retain: tuple[str, ...] = ()
    summarise: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; the latest exchange always stays, so it is at least 1")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")


class Exchange(NamedTuple):
    """The size of an exchange in tokens, and the tools whose results are in it."""

    tokens: int
    tools: frozenset[str]


def choose(window: Window, head_tokens: int, exchanges: Sequence[Exchange]) -> list[int]:
    """The places of the exchanges that leave, oldest first."""
    left = len(exchanges)
    tokens = head_tokens + sum(exchange.tokens for exchange in exchanges)
    leaving: list[int] = []
    for place, exchange in enumerate(exchanges[:-1]):
        is_short = window.steps is None or left <= window.steps
        if is_short and tokens <= window.max_tokens:
            break
        if exchange.tools.isdisjoint(window.retain):
            leaving.append(place)
            left -= 1
            tokens -= exchange.tokens
    return leaving
