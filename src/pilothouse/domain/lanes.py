"""Lanes: named classes of the queue, each with slots of its own on every worker, plus slots that all share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Lane(StrEnum):
    """In the order in which they take shared slots."""

    CRITICAL = "critical"
    NORMAL = "normal"
    LOW = "low"


LANE_ORDER: tuple[Lane, ...] = tuple(Lane)

AGEING_SECONDS = 60.0
"""A run that has waited this much longer competes for shared slots as if it were one lane higher."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a worker can take now: free reserved slots of each lane that it asks for, and free shared slots."""

    reserved: Mapping[Lane, int]
    shared: int

    @property
    def is_empty(self) -> bool:
        return self.most == 0

    @property
    def most(self) -> int:
        """How many runs one lane could fill at most."""
        return max((count + self.shared for count in self.reserved.values()), default=0)

    def at_most(self, count: int) -> Demand:
        """The part of it that asks for no more than `count` runs of one kind of slot."""
        reserved = {lane: min(own, count) for lane, own in self.reserved.items()}
        return Demand(reserved, min(self.shared, count))

    def without(self, other: Demand) -> Demand:
        """What is left of it when `other` has had its part."""
        reserved = {lane: max(0, own - other.reserved.get(lane, 0)) for lane, own in self.reserved.items()}
        return Demand(reserved, max(0, self.shared - other.shared))

    def after(self, taken: Mapping[Lane, int]) -> Demand:
        """What is left of it when `taken` runs of each lane have filled their lane's slots, and then shared ones."""
        spilled = sum(max(0, taken.get(lane, 0) - own) for lane, own in self.reserved.items())
        reserved = {lane: max(0, own - taken.get(lane, 0)) for lane, own in self.reserved.items()}
        return Demand(reserved, max(0, self.shared - spilled))

    def only(self, lanes: Collection[Lane]) -> Demand:
        """The part of it that asks for `lanes`."""
        return Demand({lane: count for lane, count in self.reserved.items() if lane in lanes}, self.shared)

    def unsated(self, taken: Mapping[Lane, int]) -> frozenset[Lane]:
        """The lanes that may hold more than was taken: they filled their own slots, and no shared slot was left."""
        shared_taken = sum(max(0, taken.get(lane, 0) - own) for lane, own in self.reserved.items())
        if shared_taken < self.shared:
            return frozenset(lane for lane, own in self.reserved.items() if 0 < own + self.shared <= taken.get(lane, 0))
        return frozenset(lane for lane, own in self.reserved.items() if taken.get(lane, 0) >= own)


@dataclass(frozen=True, slots=True)
class Slots:
    """A worker's concurrency: `reserved` per lane and `shared` by all."""

    reserved: Mapping[Lane, int] = field(default_factory=lambda: {Lane.CRITICAL: 4, Lane.NORMAL: 8, Lane.LOW: 2})
    shared: int = 4

    def __post_init__(self) -> None:
        if self.shared < 0 or any(count < 0 for count in self.reserved.values()):
            raise ValueError("a lane cannot have fewer than 0 slots")
        if self.total < 1:
            raise ValueError("a worker needs at least one slot")

    @property
    def total(self) -> int:
        return self.shared + sum(self.reserved.values())

    def free(self, in_use: Mapping[Lane, int]) -> Demand:
        """Runs fill their lane's reserved slots first; what does not fit there occupies shared slots."""
        spilled = sum(max(0, in_use.get(lane, 0) - self.reserved.get(lane, 0)) for lane in LANE_ORDER)
        reserved = {lane: max(0, self.reserved.get(lane, 0) - in_use.get(lane, 0)) for lane in LANE_ORDER}
        return Demand(reserved=reserved, shared=max(0, self.shared - spilled))


def parse_lanes(text: str) -> dict[Lane, int]:
    """Reads `critical=4,normal=8,low=2`. Raises ValueError that names the part that does not fit."""
    reserved = dict.fromkeys(LANE_ORDER, 0)
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, count = part.partition("=")
        if name not in set(LANE_ORDER) or not count.isdecimal():
            raise ValueError(f"{part!r} is not LANE=SLOTS with LANE one of {', '.join(LANE_ORDER)} and SLOTS a number")
        reserved[Lane(name)] = int(count)
    return reserved
