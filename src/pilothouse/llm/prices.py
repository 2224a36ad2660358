"""What a call costs in micro-dollars: from the price list of genai-prices, or from [prices] in the settings."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from pilothouse.domain.prices import FREE, Price, Rates, Usage
from pilothouse.domain.routes import OFFLINE, ModelId
from pilothouse.errors import UnknownPrice

if TYPE_CHECKING:
    from datetime import datetime

    from genai_prices.types import ModelPrice, TieredPrices
    from pydantic_ai.usage import RequestUsage

LISTED = "genai-prices"
OVERRIDDEN = "pilothouse.toml"

MADE_UP = frozenset({OFFLINE, "test", "function"})
"""Providers whose models are functions: ours, and those of Pydantic AI's own test models."""

MAX_KEPT = 10_000


class Cost(NamedTuple):
    microusd: int
    source: str


class PriceList:
    """The prices of models. What [prices] in the settings says beats the list; names there may hold `*`."""

    def __init__(self, overrides: Mapping[str, Price]) -> None:
        self._overrides = dict(overrides)
        self._own: dict[ModelId, tuple[Rates, str] | None] = {}
        self._listed: dict[int, ListedPrice] = {}

    def require(self, model: ModelId, at: datetime) -> None:
        """Raises UnknownPrice before any money is spent on a model whose price nobody knows."""
        self.cost(model, Usage(), at)

    def cost(self, model: ModelId, usage: Usage, at: datetime) -> Cost:
        """What `usage` cost at the instant `at`, rounded up to a whole micro-dollar."""
        if model not in self._own:
            _make_room(self._own)
            self._own[model] = self._override(model)
        own = self._own[model]
        if own is not None:
            rates, source = own
            return Cost(rates.cost_microusd(usage), source)
        return Cost(self._find(model, at).cost_microusd(usage), LISTED)

    def _override(self, model: ModelId) -> tuple[Rates, str] | None:
        name = str(model)
        if name in self._overrides:
            return self._overrides[name].rates, OVERRIDDEN
        for pattern, price in self._overrides.items():
            if fnmatchcase(name, pattern):
                return price.rates, OVERRIDDEN
        return (FREE.rates, OFFLINE) if model.provider in MADE_UP else None

    def _find(self, model: ModelId, at: datetime) -> ListedPrice:
        """The list may be exchanged at any time, and holds prices of hours and of days; each is worked out once."""
        from genai_prices.data_snapshot import get_snapshot

        try:
            _, found = get_snapshot().find_provider_model(model.name, None, model.provider, None)
        except LookupError as error:
            raise UnknownPrice(str(model)) from error
        price = found.get_prices(at)
        listed = self._listed.get(id(price))
        if listed is None:
            _make_room(self._listed)
            listed = self._listed[id(price)] = ListedPrice(str(model), price)
        return listed


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= MAX_KEPT:
        kept.clear()


class ListedPrice:
    """A price of genai-prices. What it comes to per token is asked once for every tier, which is what takes time.

    It keeps the price, so that no other one can get its id.
    """

    def __init__(self, model: str, price: ModelPrice) -> None:
        self._model = model
        self._price = price
        self._starts = sorted({tier.start for each in _tiered(price).values() for tier in each.tiers})
        self._rates: dict[int, Rates] = {}

    def cost_microusd(self, usage: Usage) -> int:
        """Raises UnknownPrice for a price that nobody could reckon with."""
        place = bisect_left(self._starts, usage.total_input)
        if place not in self._rates:
            self._rates[place] = self._rates_with(usage.total_input)
        return self._rates[place].cost_microusd(usage)

    def _rates_with(self, total_input: int) -> Rates:
        flat = _flat(self._price, total_input)
        try:
            call = _microusd(flat, Usage())
            ones = (Usage(**{name: 1}) for name in Usage._fields)
            return Rates(call, tuple(_microusd(flat, one) - call for one in ones))
        except ValueError as error:
            raise UnknownPrice(self._model) from error


def _tiered(price: ModelPrice) -> dict[str, TieredPrices]:
    from genai_prices.types import TieredPrices

    return {name: each for name, each in vars(price).items() if isinstance(each, TieredPrices)}


def _flat(price: ModelPrice, total_input: int) -> ModelPrice:
    """The price of questions with so many tokens going in: the tier that they reach holds for all of them."""
    from genai_prices.types import ModelPrice

    flat = {name: _reached(each, total_input) for name, each in _tiered(price).items()}
    return ModelPrice(**{**vars(price), **flat}) if flat else price


def _reached(tiered: TieredPrices, total_input: int) -> Decimal:
    return next((tier.price for tier in reversed(tiered.tiers) if total_input > tier.start), tiered.base)


def _microusd(price: ModelPrice, usage: Usage) -> Decimal:
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.total_input,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.total_output,
    )
    return price.calc_price(counted)["total_price"] * 1_000_000


def split_usage(usage: RequestUsage) -> Usage:
    """A provider's count in disjoint classes: its input holds what its cache gave and took, its output reasoning."""
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    total = usage.output_tokens or 0
    reasoning = min(total, usage.output_reasoning_tokens or usage.details.get("reasoning_tokens", 0) or 0)
    fresh = max(0, (usage.input_tokens or 0) - read - written)
    return Usage(fresh, read, written, total - reasoning, reasoning)
