"""Providers: where models are reached, with which keys, and how much they take per minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Protocol = Literal["openai", "anthropic", "google"]

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Provider:
    """`keys` are names of environment variables; calls rotate over them. `base_url` overrides the provider's own.

    `requests_per_minute` and `tokens_per_minute` bound what goes out to one model with one key, from all workers
    together (None: as much as the provider takes).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    protocol: Protocol = "openai"
    base_url: str | None = None
    keys: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    def __str__(self) -> str:
        limits = [
            f"{count} {unit}/min"
            for count, unit in ((self.requests_per_minute, "requests"), (self.tokens_per_minute, "tokens"))
            if count is not None
        ]
        return " ".join([self.base_url or self.protocol, *self.keys, *limits])


KNOWN = {
    "openai": Provider(keys=("OPENAI_API_KEY",)),
    "anthropic": Provider("anthropic", keys=("ANTHROPIC_API_KEY",)),
    "google": Provider("google", keys=("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    "deepseek": Provider(base_url="https://api.deepseek.com", keys=("DEEPSEEK_API_KEY",)),
    "openrouter": Provider(base_url="https://openrouter.ai/api/v1", keys=("OPENROUTER_API_KEY",)),
    "cerebras": Provider(base_url="https://api.cerebras.ai/v1", keys=("CEREBRAS_API_KEY",)),
    "ollama": Provider(base_url="http://localhost:11434/v1"),
}
"""What is needed to reach a provider that has no [providers.NAME] of its own, or says only a part."""

BASE_URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "ollama": "OLLAMA_BASE_URL"}
"""Where the providers' own clients look for another address."""
