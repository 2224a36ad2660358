"""Buckets: how much may go to a model per minute, and when there is room again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pilothouse.domain.lanes import Lane

KEPT_BACK = {Lane.CRITICAL: 0.0, Lane.NORMAL: 0.1, Lane.LOW: 0.4}
"""The part of a bucket that a lane may not use, so that there is room for the lanes above it when there is little."""


class Bucket(NamedTuple):
    """`per_minute` units, all of them at once if need be.

    `due_at` is the instant at which the bucket would be whole again, in microseconds; of an unused one it is 0.
    """

    name: str
    per_minute: int
    due_at: int = 0


MINUTE_US = 60_000_000

LINE_SHARE = 2
"""So many of those in line come back in the time in which there is room for one: what was taken on an estimate is given
back in part, so that there is often room sooner.
"""

LONGEST_LINE_US = 120_000_000
"""Nobody waits longer than this for those before; a line that is as long begins anew beside itself."""


def take(bucket: Bucket, units: int, now: int, lane: Lane) -> tuple[int, int]:
    """The new `due_at`, and how many microseconds to wait: 0 where the units are taken.

    The generic cell rate algorithm (ITU-T I.371, virtual scheduling) with a cost per request. A request for more than
    the whole bucket is let through once the bucket is whole, for it would never go out otherwise.
    """
    start, cost, burst = max(bucket.due_at, now), cost_us(bucket, units), burst_us(lane)
    wait = start + min(cost, burst) - now - burst
    if wait > 0:
        return bucket.due_at, wait
    return start + cost, 0


def stand_in_line(end: int, wanted: Sequence[tuple[Bucket, int]], now: int, wait_us: int) -> tuple[int, int]:
    """The new end of the line, and how many microseconds whoever comes last in it waits, who alone waits `wait_us`."""
    first = now + wait_us
    place = end if first <= end <= first + LONGEST_LINE_US else first
    step = max(cost_us(bucket, units) for bucket, units in wanted) // LINE_SHARE
    return place + step, place - now


def give_back(bucket: Bucket, units: int) -> int:
    """The `due_at` after `units` that were taken turned out not to be needed; negative units are taken on top."""
    return bucket.due_at - cost_us(bucket, units)


def cost_us(bucket: Bucket, units: int) -> int:
    """How long the bucket takes to fill up with so many units again, in microseconds."""
    return round(units * MINUTE_US / bucket.per_minute)


def burst_us(lane: Lane) -> int:
    """How much a lane may use at once, as the time in which it fills up again, in microseconds."""
    return round(MINUTE_US * (1 - KEPT_BACK[lane]))
