"""What answers about kill switches look like."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class TrippedSwitch(BaseModel):
    scope: str
    mode: Literal["hold", "drain", "abort"]
    reason: str
    epoch: int = Field(description="Counts every trip and reset.")
    tripped_by: str
    tripped_at: datetime
    note: str | None = Field(None, description="Says where nothing of its name is registered.")


class Switch(TrippedSwitch):
    silent: list[str] = Field(description="The live workers that do not act by it yet.")


class ResetSwitch(TrippedSwitch):
    """As it was."""

    released: int = Field(description="How many runs that waited for it go on.")


class SwitchList(BaseModel):
    items: list[Switch]
    next: None
    live_workers: int
    disabled_workers: int = Field(description="Live ones that were started with ENGINE_ENABLED=false.")
