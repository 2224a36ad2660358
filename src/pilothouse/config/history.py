"""Settings of the history of counters and gauges."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class HistorySettings(BaseSettings):
    """How long charts and forecasts can look back."""

    history_days: float = Field(
        30.0,
        ge=1,
        le=3650,
        description="How long the history of counters and gauges is kept, behind charts and alerts.",
    )
