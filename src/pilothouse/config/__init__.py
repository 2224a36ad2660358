"""Settings: one frozen object, read once from the environment and `pilothouse.toml`, the environment first."""

from pilothouse.config.environment import child_environment, environment_value, is_child, isolated_environment
from pilothouse.config.hidden import known_secrets
from pilothouse.config.settings import Settings
from pilothouse.config.sources import describe_settings, environment_names, load_settings, mask

__all__ = [
    "Settings",
    "child_environment",
    "describe_settings",
    "environment_names",
    "environment_value",
    "is_child",
    "isolated_environment",
    "known_secrets",
    "load_settings",
    "mask",
]
