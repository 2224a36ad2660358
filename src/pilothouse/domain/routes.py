"""Routes: a name for an ordered list of models, with caps on every call that goes through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

DEFAULT_ROUTE = "default"
OFFLINE = "offline"


class ModelId(NamedTuple):
    """A model as its provider names it; written `provider:name`."""

    provider: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.name}"


def parse_model(text: str) -> ModelId:
    """Reads `openai:gpt-5-mini`. Raises ValueError for anything without a provider and a name."""
    provider, separator, name = text.partition(":")
    if not (provider and separator and name) or provider != provider.strip():
        raise ValueError(f"{text!r} is no model; write PROVIDER:MODEL, such as openai:gpt-5-mini or offline:echo")
    return ModelId(provider, name)


@dataclass(frozen=True, slots=True)
class Route:
    """`models` are asked in their order: the next one where the one before cannot answer now.

    `max_input_tokens` and `max_output_tokens` bound one call, `max_calls_per_run` the calls of one run through this
    route, `timeout_seconds` each try of one model. `temperature` goes to the model as it is. Answers are kept for
    `cache_seconds` and given again to the same question of the same tenant (0: never).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    models: tuple[str, ...]
    max_input_tokens: int = 200_000
    max_output_tokens: int = 4_096
    max_calls_per_run: int = 200
    timeout_seconds: float = 120.0
    temperature: float | None = None
    cache_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models is empty; name at least one, such as openai:gpt-5-mini")
        _ = self.ids
        for name in ("max_input_tokens", "max_output_tokens", "max_calls_per_run", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.cache_seconds < 0:
            raise ValueError(f"cache_seconds is {self.cache_seconds}; it must not be below 0")

    @property
    def ids(self) -> tuple[ModelId, ...]:
        return tuple(parse_model(model) for model in self.models)

    def __str__(self) -> str:
        return ", then ".join(self.models)
