"""What answers about liveness and readiness look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Verdict = Literal["ready", "degraded", "not_ready"]


class Health(BaseModel):
    status: Literal["ok"]


class Check(BaseModel):
    status: Verdict
    detail: str
    command: str | None = Field(description="What to run next, where there is something.")


class Ready(BaseModel):
    status: Verdict
    checks: dict[str, Check]
