"""The secrets of tools, out of the worker's environment, for the agents and tenants that the settings name."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse.config import environment_value
from pilothouse.domain.secrets import SecretRule
from pilothouse.errors import ToolError


class ProcessSecrets:
    """In a process of its own an attempt has the variables that its agent names, and no others."""

    def find(self, name: str, *, agent: str, tenant: str) -> str:
        """Raises ToolError for a secret that is not there."""
        secret = environment_value(name)
        if secret is None:
            raise ToolError(
                f"secret {name!r} is not there for agent {agent!r} of tenant {tenant!r}: an isolated agent names its "
                f"secrets itself, secrets=({name!r},)"
            )
        return secret


class EnvironmentSecrets:
    """What no rule names does not exist for any tool."""

    def __init__(self, rules: Mapping[str, SecretRule]) -> None:
        self._rules = dict(rules)

    def find(self, name: str, *, agent: str, tenant: str) -> str:
        """Raises ToolError for a secret that is not there, or not for them."""
        rule = self._rules.get(name)
        if rule is None:
            raise ToolError(f"there is no secret {name!r}; declare it in pilothouse.toml: [secrets.{name}]")
        variable = rule.variable(name, agent=agent, tenant=tenant)
        if variable is None:
            raise ToolError(f"secret {name!r} is not for agent {agent!r} of tenant {tenant!r}")
        secret = environment_value(variable)
        if secret is None:
            raise ToolError(f"secret {name!r} is empty: set {variable} in the worker's environment")
        return secret
