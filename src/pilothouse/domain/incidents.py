"""Incidents: which other effects a bad one has for siblings, and the case that its run is frozen as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

HOUR_US = 3_600_000_000


class Severity(StrEnum):
    """`critical` ones count against an agent's autonomy."""

    CRITICAL = "critical"
    MINOR = "minor"


@dataclass(frozen=True, slots=True)
class Deed:
    """What an effect is compared by. `root_id` is the first run of its lineage, `at` an instant in microseconds."""

    agent: str
    tool: str
    fingerprint: str | None
    arguments_hash: str
    root_id: str
    at: int


def kinship(original: Deed, other: Deed, *, hours: int) -> tuple[str, ...]:
    """In what an effect is a sibling of a bad one; nothing where it is none.

    `arguments`: the same call of the same tool. `lineage`: by a run of the same lineage. `version`: by the same code of
    the same agent through the same tool, at most so many hours before or after.
    """
    alike = []
    if (other.tool, other.arguments_hash) == (original.tool, original.arguments_hash):
        alike.append("arguments")
    if other.root_id == original.root_id:
        alike.append("lineage")
    by_same_code = (other.agent, other.tool, other.fingerprint) == (original.agent, original.tool, original.fingerprint)
    if by_same_code and abs(other.at - original.at) <= hours * HOUR_US:
        alike.append("version")
    return tuple(alike)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step came to: JSON values. `key` is its name in the journal."""

    key: str
    kind: str
    state: str
    result: Any
    error: Any


def regression_case(
    *, agent: str, input: Any, answers: Iterable[Answer], tool: str, arguments: Any, source: Mapping[str, Any]
) -> dict[str, Any]:
    """A run up to its bad action, so that it can be lived again: what it was given, and what it must not do.

    `source` says where the case comes from.
    """
    return {
        "agent": agent,
        "input": input,
        "answers": [
            {"key": each.key, "kind": each.kind, "state": each.state, "result": each.result, "error": each.error}
            for each in answers
        ],
        "expectation": {"must_not_call": {"tool": tool, "arguments": arguments}},
        "source": dict(source),
    }
