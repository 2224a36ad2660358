"""What answers about the history of counters and gauges look like, for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class Series(BaseModel):
    """One line of a chart. What the label says depends on the name: a lane, an outcome, a model, a tool."""

    name: str
    agent: str = Field(description="Empty where it is no agent's.")
    label: str
    kind: Literal["cumulative", "gauge"]
    values: list[int | None] = Field(description="At each instant; null before it began.")
    rates: list[float | None] | None = Field(
        description="Growth per second up to each instant, of cumulative series; the first has none before it."
    )
    increase: int | None = Field(description="How much was counted over the whole stretch; null for gauges.")


class History(BaseModel):
    instants: list[datetime]
    step_seconds: int
    items: list[Series]
    next: None
