"""Secrets of tools: which exist, and which agents and tenants may have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

HIDDEN = "***"

SHORTEST = 6
"""Characters that a secret must have to be taken out of texts: shorter ones would take out half of every text."""


@dataclass(frozen=True, slots=True)
class SecretRule:
    """`env` is the variable that holds it (the secret's own name unless given), `tenants` those of single tenants.

    It is for the `agents` that are named (none named: for all), and for a tenant with a variable of its own, or for
    every tenant where `env` stands for all.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    env: str | None = None
    agents: tuple[str, ...] = ()
    tenants: Mapping[str, str] = field(default_factory=dict)

    def variable(self, name: str, *, agent: str, tenant: str) -> str | None:
        """The variable that holds the secret for this agent and tenant; None where it is not for them."""
        if self.agents and agent not in self.agents:
            return None
        if self.tenants and self.env is None:
            return self.tenants.get(tenant)
        return self.tenants.get(tenant, self.env or name)

    def __str__(self) -> str:
        parts = [self.env or "", *self.agents, *(f"{tenant}={env}" for tenant, env in self.tenants.items())]
        return " ".join(part for part in parts if part) or "for all"


def redact(text: str, secrets: frozenset[str]) -> str:
    """The text without the secrets in it."""
    for secret in secrets:
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return text
