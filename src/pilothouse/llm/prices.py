"""What a call costs in micro-dollars: from the price list of genai-prices, or from [prices] in the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from pilothouse.domain.prices import FREE, Price, Usage
from pilothouse.domain.routes import OFFLINE, ModelId
from pilothouse.errors import UnknownPrice

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic_ai.usage import RequestUsage

LISTED = "genai-prices"
OVERRIDDEN = "pilothouse.toml"

MADE_UP = frozenset({OFFLINE, "test", "function"})
"""Providers whose models are functions: ours, and those of Pydantic AI's own test models."""

LIST_NAMES = {"google": "google"}


class Cost(NamedTuple):
    microusd: int
    source: str


class PriceList:
    """The prices of models. What [prices] in the settings says beats the list; names there may hold `*`."""

    def __init__(self, overrides: Mapping[str, Price]) -> None:
        self._overrides = dict(overrides)
        self._known: set[ModelId] = set()

    def require(self, model: ModelId) -> None:
        """Raises UnknownPrice before any money is spent on a model whose price nobody knows."""
        if model not in self._known:
            self.cost(model, Usage(input=1000, output=1000), None)
            self._known.add(model)

    def cost(self, model: ModelId, usage: Usage, at: datetime | None) -> Cost:
        """What `usage` cost at the instant `at` (None: today), rounded up to a whole micro-dollar."""
        own = self._override(model)
        if own is not None:
            return Cost(own.cost_microusd(usage), OVERRIDDEN if own is not FREE else OFFLINE)
        return Cost(_listed_microusd(model, usage, at), LISTED)

    def _override(self, model: ModelId) -> Price | None:
        name = str(model)
        if name in self._overrides:
            return self._overrides[name]
        fitting = (price for pattern, price in self._overrides.items() if fnmatchcase(name, pattern))
        return next(fitting, FREE if model.provider in MADE_UP else None)


def _listed_microusd(model: ModelId, usage: Usage, at: datetime | None) -> int:
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.total_input,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.total_output,
    )
    try:
        price = genai_prices.calc_price(
            counted,
            model_ref=model.name,
            provider_id=LIST_NAMES.get(model.provider, model.provider),
            genai_request_timestamp=at,
        )
    except (LookupError, ValueError) as error:
        raise UnknownPrice(str(model)) from error
    return math.ceil(price.total_price * 1_000_000)


def split_usage(usage: RequestUsage) -> Usage:
    """A provider's count in disjoint classes: its input holds what its cache gave and took, its output reasoning."""
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    total = usage.output_tokens or 0
    reasoning = min(total, usage.output_reasoning_tokens or usage.details.get("reasoning_tokens", 0) or 0)
    fresh = max(0, (usage.input_tokens or 0) - read - written)
    return Usage(fresh, read, written, total - reasoning, reasoning)
