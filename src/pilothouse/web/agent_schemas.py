"""What answers about how agents do look like, for the OpenAPI document, as the others in `schemas`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from pilothouse.web.autonomy_schemas import Autonomy
from pilothouse.web.schemas import Breaker
from pilothouse.web.spending_schemas import Budget
from pilothouse.web.switch_schemas import Switch


class Health(BaseModel):
    tone: Literal["red", "amber", "green", "grey"]
    word: str = Field(description="Such as `well`, `idle`, `fails`, `stopped`, `not served`.")
    reasons: list[str] = Field(description="The gravest first.")


class AgentVersion(BaseModel):
    """What the latest 200 runs of an agent show of one version."""

    fingerprint: str
    runs: int
    ended: dict[str, int]
    success_share: float | None
    last_at: datetime


class AgentStanding(BaseModel):
    """How an agent does. Today begins at midnight of the budgets' time zone."""

    name: str
    health: Health
    runs: dict[str, int] = Field(description="Those that have not ended, by state.")
    oldest_age_seconds: float = Field(description="For how long its oldest queued run has been due.")
    ended_today: dict[str, int] = Field(description="Runs by state.")
    success_share_today: float | None
    cost_microusd_today: int
    limit_microusd_of_a_day: int | None = Field(description="Null: it has none of its own.")
    workers: int = Field(description="Live ones that run it.")
    switch: Switch | None = Field(description="The tripped switch that stops it.")
    breakers: list[Breaker] = Field(description="Of what it has called.")
    median_seconds: float | None = Field(description="From the first claim of a run to its end.")
    p95_seconds: float | None
    measured_runs: int
    versions: list[AgentVersion]
    levels: list[Autonomy]
    budgets: list[Budget] = Field(description="Limits of its own.")
