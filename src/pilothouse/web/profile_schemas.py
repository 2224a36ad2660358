"""What a profile looks like: where time and money went in the runs of a period."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class ProfileLine(BaseModel):
    """What one agent, step, model, tool or wait has taken together, times in microseconds."""

    count: int
    failed: int
    us: int
    mean_us: int
    longest_us: int
    longest_run: str
    microusd: int
    tokens: int


class AgentLine(ProfileLine):
    agent: str


class StepLine(ProfileLine):
    step: str = Field(description="The agent and the step's key, numbers left out.")


class ModelLine(ProfileLine):
    model: str


class ToolLine(ProfileLine):
    tool: str


class WaitLine(ProfileLine):
    wait: str = Field(description="The agent and what it waited for.")


class Profile(BaseModel):
    """Groups that were not asked for are left out."""

    since: datetime
    until: datetime
    agent: str | None
    is_cut: bool = Field(description="There were more runs than were to be read; `since` says how far it went.")
    runs: int
    us: int
    microusd: int
    tokens: int
    where_time_went: dict[str, int]
    by_agent: list[AgentLine] | None = None
    by_step: list[StepLine] | None = None
    by_model: list[ModelLine] | None = None
    by_tool: list[ToolLine] | None = None
    by_wait: list[WaitLine] | None = None
