"""What the waterfall of a run looks like."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from pilothouse.web.schemas import RunState


class Span(BaseModel):
    """A stretch of time. Its cost holds that of the spans below it."""

    kind: Literal["queue", "attempt", "step", "model", "tool", "effect", "wait", "approval", "child"]
    name: str
    started_at: datetime
    ended_at: datetime | None = Field(description="Null while it is under way.")
    state: str
    detail: str
    attempt: int | None
    id: str | None = Field(description="Of a child its run, of an approval or effect its id, of an attempt its worker.")
    cost_microusd: int
    tokens: int
    depth: int
    parent: int | None = Field(description="The place in the list of the span that it is in.")


class CostOfName(BaseModel):
    name: str
    calls: int
    microusd: int
    tokens: int
    us: int = Field(description="How long its calls took together, in microseconds.")


class CostOfRun(BaseModel):
    """What the run's own calls have cost; its children's are theirs."""

    microusd: int
    tokens: int
    input_tokens: int
    output_tokens: int
    model_calls: int
    cached_calls: int
    tool_calls: int
    by_model: list[CostOfName]
    by_tool: list[CostOfName]


class Waterfall(BaseModel):
    run: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    now: datetime
    total_us: int
    where_time_went: dict[str, int] = Field(description="Microseconds by part; they add up to `total_us`.")
    cost: CostOfRun
    is_cut: bool = Field(description="The run is longer than what is read.")
    spans: list[Span]
