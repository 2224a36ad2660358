"""Kill switches: what an operator may stop, in which mode, and whom a tripped switch keeps from what."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pilothouse.errors import FieldError, InvalidInput

GLOBAL = "global"
TOOL = "tool"
KINDS = ("tenant", "agent", "version", "lane", TOOL)
MAX_NAME_LENGTH = 255

FORMS = f"{GLOBAL}, tenant:NAME, agent:NAME, version:FINGERPRINT, lane:NAME or tool:NAME"


class SwitchMode(StrEnum):
    """None of them lets anything be claimed. `hold`: what runs stops before its next effect, and goes on after the
    reset. `drain`: what runs finishes. `abort`: submits are refused, and what runs is given back at once.
    """

    HOLD = "hold"
    DRAIN = "drain"
    ABORT = "abort"


class Scope(NamedTuple):
    """What a switch stops: everything of one kind and name; `global` has no name."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Switch:
    """A tripped switch. `epoch` counts every trip and reset; `tripped_at` is an instant in microseconds."""

    scope: str
    mode: SwitchMode
    reason: str
    epoch: int
    tripped_by: str
    tripped_at: int

    @property
    def is_of_tool(self) -> bool:
        return self.scope.startswith(f"{TOOL}:")

    def told(self) -> str:
        """The switch in words."""
        why = f": {self.reason}" if self.reason else ", without a reason"
        return f"switch {self.scope} ({self.mode}), tripped by {self.tripped_by}{why}"


Tripped = Mapping[str, Switch]
"""The tripped switches by their scopes."""


class Target(NamedTuple):
    """What of a run a switch may be about. `version` is the fingerprint of its agent's code."""

    tenant: str
    agent: str
    lane: str
    version: str | None

    @property
    def scopes(self) -> tuple[str, ...]:
        """From the widest to the narrowest."""
        return (
            GLOBAL,
            f"tenant:{self.tenant}",
            f"lane:{self.lane}",
            f"agent:{self.agent}",
            *(() if self.version is None else (f"version:{self.version}",)),
        )


def parse_scope(text: str) -> Scope:
    """Raises InvalidInput that says how scopes are written."""
    if text == GLOBAL:
        return Scope(GLOBAL)
    kind, separator, name = text.partition(":")
    if kind not in KINDS or not separator:
        raise _no_scope(text, _did_you_mean(kind, name))
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise _no_scope(text, f"; the name has 1 to {MAX_NAME_LENGTH} characters that can be printed")
    return Scope(kind, name)


def _did_you_mean(kind: str, name: str) -> str:
    close = difflib.get_close_matches(kind, (GLOBAL, *KINDS), n=1)
    if not close:
        return ""
    meant = GLOBAL if close[0] == GLOBAL else f"{close[0]}:{name or 'NAME'}"
    return f"; did you mean {meant!r}?"


def _no_scope(text: str, advice: str) -> InvalidInput:
    told = f"{text[:300]!r} is no scope of a switch; write {FORMS}{advice}"
    return InvalidInput(f"scope: {told}", [FieldError("scope", told)])


def keeping_back(tripped: Tripped, target: Target) -> list[Switch]:
    """The switches that keep a run from being claimed, the widest first."""
    return [tripped[scope] for scope in target.scopes if scope in tripped] if tripped else []


def aborting(tripped: Tripped, target: Target) -> Switch | None:
    """The switch for which new runs are refused and what runs is given back, if there is one."""
    found = keeping_back(tripped, target)
    return next((switch for switch in found if switch.mode == SwitchMode.ABORT), None)


def stopping(tripped: Tripped, target: Target, tool: str | None = None) -> Switch | None:
    """The switch that keeps an effect of a run, or its call of a tool, from starting; None where it may start.

    One that aborts comes first: what it stops does not wait. Of a tool every mode makes its calls wait.
    """
    if not tripped:
        return None
    found = [switch for switch in keeping_back(tripped, target) if switch.mode != SwitchMode.DRAIN]
    of_tool = tripped.get(f"{TOOL}:{tool}") if tool is not None else None
    if of_tool is not None:
        found.append(of_tool)
    return min(found, key=lambda switch: switch.is_of_tool or switch.mode != SwitchMode.ABORT, default=None)


def names_of(tripped: Tripped, kind: str) -> frozenset[str]:
    """The names of one kind that have a tripped switch."""
    prefix = f"{kind}:"
    return frozenset(scope.removeprefix(prefix) for scope in tripped if scope.startswith(prefix))
