"""Settings of the dashboard."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class DashboardSettings(BaseSettings):
    """How long people stay signed in, and what their sessions are signed with."""

    session_hours: float = Field(
        12.0, gt=0, le=24 * 90, description="How long a browser stays signed in to the dashboard, in hours."
    )
    session_secret: str | None = Field(
        None,
        min_length=16,
        description="What sessions are signed with, beside the hash of their key; with it, nobody who can read the "
        "database can make one.",
    )
