"""What the answer about the platform as a whole looks like."""

from __future__ import annotations

from pydantic import BaseModel, Field

from pilothouse.web.alert_schemas import AlertOverview
from pilothouse.web.schemas import ListedWorker, RunSummary
from pilothouse.web.spending_schemas import Spending
from pilothouse.web.switch_schemas import Switch


class Queue(BaseModel):
    agent: str
    lane: str
    runs: dict[str, int] = Field(description="How many are in each state.")
    oldest_age_seconds: float


class DeadCount(BaseModel):
    count: int
    has_more: bool = Field(description="There are more than `count`; it stops counting there.")


class Overview(BaseModel):
    version: str
    queues: list[Queue]
    workers: list[ListedWorker]
    runs: list[RunSummary]
    dead: DeadCount
    switches: list[Switch] = Field(description="The kill switches that are tripped.")
    spending: Spending
    alerts: AlertOverview = Field(description="Those that fire.")
