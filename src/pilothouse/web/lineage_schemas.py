"""What the answer to a cancel looks like."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, RootModel

from pilothouse.web.schemas import Run, RunState


class LineageMember(BaseModel):
    id: str
    tenant: str
    agent: str
    lane: str
    state: RunState
    parent_id: str | None
    cancel_requested_at: datetime | None
    created_at: datetime


class Reservation(BaseModel):
    """What a call under way may use at most; it is settled when it is known what it did use."""

    id: str
    run_id: str
    key: str
    tool: str | None
    model: str | None
    microusd: int
    tokens: int
    actions: int
    created_at: datetime


class Lineage(BaseModel):
    """What of a lineage has not ended: what was cancelled, or would be."""

    root_id: str
    dry_run: bool
    runs: list[LineageMember]
    reservations: list[Reservation]


class Cancelled(RootModel[Run | Lineage]):
    """The run; with `lineage` or `dry_run` everything that it is about."""
