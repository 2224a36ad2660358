"""What goes wrong in a world, drawn from its seed: each world has its own mixture."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

Mishap = Literal["", "unreachable", "undone", "unheard", "rerun", "crash_before", "crash_after"]

CHANCES: dict[Mishap, float] = {
    "unreachable": 0.03,
    "undone": 0.02,
    "unheard": 0.03,
    "rerun": 0.05,
    "crash_before": 0.004,
    "crash_after": 0.006,
}
"""How likely a call meets each, in a world that has it."""


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one call: how long it travels, in seconds, to the database and back, and what happens to it on the way."""

    there: float
    back: float
    mishap: Mishap


class Faults:
    """Draws fates until `heal`; from then on everything works, and only takes its time."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._is_over = False
        self._mixture = {mishap: odds for mishap, odds in CHANCES.items() if chance.random() < 0.6}
        self._slow_odds = chance.choice([0.0, 0.01, 0.05])
        self.hint_odds = chance.choice([1.0, 0.8, 0.0])
        self.has_jumps = chance.random() < 0.3
        self.has_outages = chance.random() < 0.4
        self.has_crashes = chance.random() < 0.7
        self.has_stops = chance.random() < 0.4

    def heal(self) -> None:
        self._is_over = True

    def draw(self) -> Fate:
        chance = self._chance
        there, back = chance.uniform(0.0002, 0.004), chance.uniform(0.0002, 0.004)
        if self._is_over:
            return Fate(there, back, "")
        if chance.random() < self._slow_odds:
            there += chance.uniform(0.1, 15.0)
        if chance.random() < self._slow_odds:
            back += chance.uniform(0.1, 15.0)
        return Fate(there, back, self._mishap())

    def _mishap(self) -> Mishap:
        point = self._chance.random()
        for mishap, odds in self._mixture.items():
            point -= odds
            if point < 0:
                return mishap
        return ""
