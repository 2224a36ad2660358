"""What a call costs, worked out once for each price, is what the list itself says of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import product

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from pilothouse.domain.prices import Price, Usage
from pilothouse.domain.routes import ModelId
from pilothouse.errors import UnknownPrice
from pilothouse.llm.prices import LISTED, OVERRIDDEN, PriceList

NOON, NIGHT = datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2026, 11, 30, 20, tzinfo=UTC)
USAGES = [Usage(1, 0, 0, 7), Usage(123_456, 789, 0, 4096, 11), Usage(200_001, 100_000, 99, 1), Usage(0, 2_000_000)]


def _said_by_list(model: ModelId, usage: Usage, at: datetime) -> int:
    counted = genai_prices.Usage(
        input_tokens=usage.total_input,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.total_output,
    )
    price = genai_prices.calc_price(
        counted, model_ref=model.name, provider_id=model.provider, genai_request_timestamp=at
    )
    return math.ceil(price.total_price * 1_000_000)


def test_every_listed_model_costs_what_the_list_says_in_every_tier_at_any_hour() -> None:
    prices = PriceList({})
    wanted = {"anthropic", "deepseek", "google", "groq", "minimax", "openai", "perplexity", "x-ai"}
    providers = [each for each in get_snapshot().providers if each.id in wanted]
    models = [ModelId(each.id, model.id) for each in providers for model in each.models if model.is_match(model.id)]

    for model, usage, at in product(models, USAGES, (NOON, NIGHT)):
        assert prices.cost(model, usage, at) == (_said_by_list(model, usage, at), LISTED), (model, usage)
    assert len(models) > 100


def test_a_tier_begins_beyond_its_start() -> None:
    prices, model = PriceList({}), ModelId("google", "gemini-2.5-pro")

    told = [prices.cost(model, Usage(tokens), NOON).microusd for tokens in (200_001, 200_000, 200_001)]

    assert told == [_said_by_list(model, Usage(tokens), NOON) for tokens in (200_001, 200_000, 200_001)]
    assert told[0] > told[1] * 1.5


def test_settings_beat_the_list_and_an_unknown_price_is_refused_each_time() -> None:
    prices = PriceList({"openai:gpt-5-*": Price(1.0, 2.0)})

    assert prices.cost(ModelId("openai", "gpt-5-mini"), Usage(3, 0, 0, 4), NOON) == (11, OVERRIDDEN)
    for _ in range(2):
        with pytest.raises(UnknownPrice):
            prices.require(ModelId("openai", "gpt-none"), NOON)
