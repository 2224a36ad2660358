"""A guard over a model's loop: so many rounds and calls, and no going round in circles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.llm.messages import ToolReturn

SAME_CALLS = 3
"""So many times the same call with the same result, and the model goes round in circles."""

STALE_ROUNDS = 3
"""So many rounds without a call or a result that was not there before, and it makes no progress."""

SHOWN = 300


class Halt(NamedTuple):
    """Why a loop is halted, and the calls that show it."""

    reason: str
    evidence: list[dict[str, Any]]


class LoopGuard:
    """Watches the rounds of one question. After `forgive` it counts from the start."""

    def __init__(self, max_rounds: int, max_calls: int) -> None:
        self._max_rounds = max_rounds
        self._max_calls = max_calls
        self._latest: list[dict[str, Any]] = []
        self.forgive()

    def forgive(self) -> None:
        self._rounds = self._calls = self._stale = 0
        self._seen = Counter[str]()

    def note(self, returns: Sequence[ToolReturn]) -> None:
        """One more round, and what its calls came to."""
        marks = [_mark(each) for each in returns]
        self._rounds += 1
        self._calls += len(returns)
        self._stale = self._stale + 1 if all(mark in self._seen for mark in marks) else 0
        self._seen.update(marks)
        self._latest = [*self._latest, *map(_shown, returns)][-SAME_CALLS * 2 :]

    def verdict(self) -> Halt | None:
        """Whether the loop must be halted."""
        if self._seen and max(self._seen.values()) >= SAME_CALLS:
            return Halt(f"the model made the same call {SAME_CALLS} times with the same result", self._latest)
        if self._stale >= STALE_ROUNDS:
            return Halt(f"the model made no progress in {STALE_ROUNDS} rounds", self._latest)
        if self._calls >= self._max_calls:
            return Halt(f"the model made {self._calls} tool calls (max_tool_calls)", self._latest)
        if self._rounds >= self._max_rounds:
            return Halt(f"the model took {self._rounds} rounds (max_rounds)", self._latest)
        return None


def _mark(each: ToolReturn) -> str:
    content = to_jsonable_python(each.content, fallback=str, inf_nan_mode="strings")
    return payloads.digest(payloads.encode([each.request.tool, each.request.arguments, content]))


def _shown(each: ToolReturn) -> dict[str, Any]:
    return {"tool": each.request.tool, "arguments": each.request.text[:SHOWN], "result": str(each.content)[:SHOWN]}
