"""What answers about effects and incidents look like; see `schemas`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class EffectSummary(BaseModel):
    """A call that changes the world. `unknown`: nobody knows whether it took place."""

    id: str
    run_id: str
    key: str = Field(description="The step that it is.")
    attempt: int
    tenant: str
    agent: str
    tool: str
    platform: str | None
    effect: str = Field(description="Its class, as its tool declares it.")
    arguments: Any
    state: Literal["intended", "succeeded", "failed", "unknown"]
    tries: int
    intended_at: datetime
    finished_at: datetime | None
    resolved_by: str | None = Field(description="Who says so, where it was not the tool itself.")
    note: str | None
    corrects: str | None = Field(description="Of a correction by hand: the effect that it corrects.")
    fingerprint: str | None = Field(description="Of the code that made the call.")


class EffectPage(BaseModel):
    items: list[EffectSummary]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last.")


class IncidentFacts(BaseModel):
    """A bad action."""

    id: str
    state: Literal["open", "closed"]
    severity: Literal["critical", "minor"]
    effect_id: str
    run_id: str
    tenant: str
    agent: str
    tool: str
    fingerprint: str | None
    reason: str
    hours: int = Field(description="How far around it siblings by the same code were looked for.")
    opened_at: datetime
    opened_by: str
    closed_at: datetime | None
    closed_by: str | None
    note: str | None


class IncidentSummary(IncidentFacts):
    siblings: int
    corrections: int


class IncidentPage(BaseModel):
    items: list[IncidentSummary]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last.")


class IncidentEffect(BaseModel):
    """The bad effect (`original`) or a sibling; `kinship` says in what it is alike: arguments, lineage, version."""

    effect_id: str
    run_id: str
    tenant: str
    kinship: str
    tool: str
    state: str = Field(description="When the incident was opened.")
    state_now: str | None = Field(description="Now; null where its run was pruned.")
    arguments: Any
    intended_at: datetime
    audit_seq: int | None = Field(description="The audit record that tells how it ended.")


class Correction(BaseModel):
    id: str = Field(description="Of one by hand, that of the effect that it is.")
    tenant: str
    effect_id: str
    audit_seq: int | None = Field(description="The audit record that is corrected.")
    note: str
    by_run: str | None
    corrected_by: str
    corrected_at: datetime


class Incident(IncidentFacts):
    effects: list[IncidentEffect]
    corrections: list[Correction]


class CaseAnswer(BaseModel):
    key: str
    kind: str
    state: str
    result: Any
    error: Any


class RegressionCase(BaseModel):
    """A run up to its bad action, and what it must not do again."""

    agent: str
    input: Any
    answers: list[CaseAnswer]
    expectation: dict[str, Any]
    source: dict[str, Any]
