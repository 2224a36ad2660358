"""Queues: how many runs may wait in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The most queued runs of one lane, and of one tenant. What is due later and what backs off counts."""

    per_lane: int = 1_000_000
    per_tenant: int = 1_000_000
