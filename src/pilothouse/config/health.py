"""Settings of health and readiness."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class HealthSettings(BaseSettings):
    """When a process says that it is not well."""

    least_free_disk_mb: int = Field(
        500, ge=0, description="Readiness is degraded with less room than this on the disk of the database or the logs."
    )
