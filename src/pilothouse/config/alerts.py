"""Settings of alerts: what the rules are, and who is told of what they find."""

from __future__ import annotations

import difflib

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from pilothouse.domain.alert_rules import NAMES, rules_with
from pilothouse.domain.alerts import AlertChange, AlertRule, Severity


class AlertSettings(BaseSettings):
    """When to alert, whom, and how often."""

    alerts: dict[str, AlertChange] = Field(
        default_factory=dict,
        description="What is other than the defaults of a rule: enabled, threshold, for_seconds, severity; as "
        "[alerts.NAME].",
    )
    alert_channels: str | None = Field(
        None,
        description="Where people are told of alerts, written as approval_channels are, which they are unless given.",
    )
    alert_severity: Severity = Field(
        Severity.WARNING, description="The least severity that people are told of: info, warning or critical."
    )
    alert_messages: int = Field(
        10, ge=1, description="How many messages of alerts a channel gets in ten minutes; the rest come in a digest."
    )
    alert_interval_seconds: float = Field(
        10.0, ge=0.01, description="How often the rules are held against what is measured, in seconds."
    )

    @field_validator("alerts")
    @classmethod
    def _expect_rules(cls, value: dict[str, AlertChange]) -> dict[str, AlertChange]:
        for name in value:
            if name not in NAMES:
                close = difflib.get_close_matches(name, NAMES, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the rules are {', '.join(NAMES)}"
                raise ValueError(f"there is no rule {name!r}; {hint}")
        return value

    @property
    def alert_rules(self) -> tuple[AlertRule, ...]:
        """Every rule as these settings want it."""
        return rules_with(self.alerts)
