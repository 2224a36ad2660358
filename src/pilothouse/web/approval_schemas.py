"""What answers about approvals and policies look like, for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class PolicyReason(BaseModel):
    rule: str
    decision: Literal["allow", "ask", "deny"]
    text: str


class Approval(BaseModel):
    """What a person is asked to decide on. `arguments` are exactly what will be done."""

    id: str
    run_id: str
    key: str = Field(description="The step that asks.")
    round: int = Field(description="How often it has asked.")
    tenant: str
    agent: str
    fingerprint: str
    kind: Literal["approval", "tool"]
    action: str
    requested_by: str
    title: str
    recommendation: str
    reasoning: str
    risk_assessment: str
    risk: int = Field(description="The tier, 0 to 4.")
    confidence: float | None
    cost_microusd: int
    cost_usd: float
    billing: Literal["none", "one_time", "recurring"]
    people_affected: int
    is_reversible: bool
    alternatives: list[str]
    arguments: Any
    arguments_hash: str
    arguments_schema: Any = Field(description="What edited arguments are held against.")
    reasons: list[PolicyReason] = Field(description="Why it is asked.")
    quorum: int = Field(description="How many different people must say yes.")
    reviewer: Literal["operator", "admin"] = Field(description="The least role of who decides.")
    policy_version: str | None
    assigned_to: str | None
    on_deadline: Literal["escalate", "expire", "wait"]
    escalate_to: str | None
    deadline_at: datetime | None
    passed_at: datetime | None = Field(description="When its deadline was seen to have passed.")
    requested_at: datetime
    state: Literal["pending", "approved", "rejected", "expired", "returned", "withdrawn"]
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    note: str | None
    decided_arguments: Any
    decided_hash: str | None


class ApprovalPage(BaseModel):
    items: list[Approval]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last.")


class ApprovalVote(BaseModel):
    principal: str
    decision: str
    note: str | None
    at: datetime
    arguments_hash: str | None


class SimilarApproval(BaseModel):
    id: str
    run_id: str
    title: str
    state: str
    decided_by: str | None
    decided_at: datetime
    note: str | None
    cost_microusd: int
    cost_usd: float
    risk: int
    arguments: Any
    is_edited: bool


class ApprovalInFull(Approval):
    votes: list[ApprovalVote]
    similar: list[SimilarApproval] = Field(description="What people decided on the same action before.")


class PolicyRule(BaseModel):
    name: str
    kind: Literal["built_in", "settings", "python"]
    rule: str
    reason: str


class PolicyList(BaseModel):
    version: str = Field(description="A hash over all rules.")
    items: list[PolicyRule]
    next: None


class PolicyVerdict(BaseModel):
    decision: Literal["allow", "ask", "deny"]
    reasons: list[PolicyReason]
    quorum: int
    reviewer: Literal["operator", "admin"]
    deadline_hours: float | None
    on_deadline: Literal["escalate", "expire", "wait"]
    version: str
