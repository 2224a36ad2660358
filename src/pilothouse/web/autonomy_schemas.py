"""What answers about autonomy, calibration and stability plans look like, for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Level = Literal["supervised", "assisted", "autonomous"]


class Evidence(BaseModel):
    """What decided approvals show since they count for this level."""

    decided: int
    needed: int = Field(description="Decided actions before a promotion.")
    approved: int = Field(description="Approved without a change.")
    approval_rate: float | None
    lower_bound: float = Field(description="Of the approval rate, exact and one-sided, 95 % sure.")
    calibration_error: float | None = Field(description="Null: not measured.")
    critical_incidents: int = Field(description="Open still, or opened since its decisions count.")


class Autonomy(BaseModel):
    """How much one version of an agent may do on its own; `action` `*` stands for all that is not listed."""

    agent: str
    fingerprint: str
    action: str
    level: Level
    since: datetime | None = Field(description="Null where nothing was set and the default counts.")
    set_by: str | None
    reason: str | None
    evidence: Evidence | None = Field(description="Of single actions.")
    missing: list[str] = Field(description="What is still to be shown before it may be promoted.")


class AutonomyList(BaseModel):
    items: list[Autonomy]
    next: None


class Scored(BaseModel):
    agent: str
    demoted: bool = Field(description="Whether the scores returned the agent to supervised.")


class CalibrationBucket(BaseModel):
    low: float
    high: float
    count: int
    stated: float | None = Field(description="The mean of the stated confidences.")
    observed: float | None = Field(description="The share that was approved without a change.")
    calibrated: float | None = Field(description="What the stated mean is taken as.")


class Calibration(BaseModel):
    """Stated confidence against outcomes, over the latest decided actions of an agent."""

    agent: str
    decided: int
    calibration_error: float | None = Field(description="Null: not measured, too few actions.")
    error_by_chance: float = Field(description="What a perfectly calibrated agent would show on average.")
    error_limit: float
    is_off: bool
    threshold: float = Field(description="As it is set.")
    effective_threshold: float = Field(description="Lifted by the error where that is over its limit.")
    buckets: list[CalibrationBucket]


class PlanFinding(BaseModel):
    criterion: str
    verdict: Literal["met", "missed", "not measured"]
    figures: str
    is_grave: bool = Field(description="Missing it ends the plan at once.")


class StabilityPlan(BaseModel):
    agent: str
    fingerprint: str
    state: Literal["running", "passed", "failed", "unproven", "stopped"]
    stage: int
    stages: int
    stage_name: str
    days: str
    day_seconds: float
    days_passed: float | None
    level: Level
    actions_per_day: int
    target_level: Level
    target_actions_per_day: int
    started_at: datetime
    started_by: str
    stage_ends_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    findings: list[PlanFinding]


class StabilityList(BaseModel):
    items: list[StabilityPlan]
    next: None
