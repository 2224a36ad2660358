"""What answers about alerts look like."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

Severity = Literal["info", "warning", "critical"]


class Alert(BaseModel):
    id: str
    rule: str
    subject: str = Field(description="What it is about, such as agent:echo/lane:normal.")
    agent: str = Field(description="Empty where it is about none.")
    tenant: str = Field(description="Empty where it is about none.")
    state: Literal["pending", "firing", "resolved"]
    severity: Severity
    value: float = Field(description="In `unit`, as it was measured last while the condition was met.")
    threshold: float
    unit: str
    text: str = Field(description="The figures, and the next command.")
    runbook: str = Field(description="`pilothouse runbook show NAME` shows it.")
    flaps: int = Field(description="How often it had fired in the hour before.")
    since: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    is_silenced: bool = Field(description="Whether a silence keeps its messages back now.")


class AlertPage(BaseModel):
    items: list[Alert]
    next: str | None


class AlertOverview(BaseModel):
    firing: dict[str, int] = Field(description="How many fire, by severity.")
    top: list[Alert] = Field(description="The gravest of them.")


class AlertNotice(BaseModel):
    event: Literal["firing", "resolved", "test"]
    recipient: str
    queued_at: datetime
    sent_at: datetime | None = Field(description="When its message was queued; null while it is held for a digest.")


class AlertDetail(Alert):
    notices: list[AlertNotice]
    audit: list[dict[str, Any]]


class AlertRule(BaseModel):
    rule: str
    severity: Severity
    measures: str
    threshold: float
    fires_below: bool = Field(description="Whether it fires at or under the threshold instead of at or over it.")
    unit: str
    for_seconds: float
    keep_seconds: float
    runbook: str
    state: Literal["off", "well", "pending", "firing"]
    firing: int
    pending: int
    value: float | None = Field(description="What is measured now, of the subject nearest to the threshold.")
    subject: str | None


class AlertRuleList(BaseModel):
    items: list[AlertRule]
    next: None


class Silence(BaseModel):
    id: str
    rule: str
    subject: str
    agent: str
    reason: str
    until_at: datetime
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    ended_by: str | None


class SilenceList(BaseModel):
    items: list[Silence]
    next: None


class SentTest(BaseModel):
    run_id: str = Field(description="The run that sends it.")


class Accepted(BaseModel):
    rule: str
    agent: str
