"""What a model call costs: its tokens in disjoint classes, and a price for each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from operator import mul
from typing import ClassVar, NamedTuple


class Usage(NamedTuple):
    """The tokens of one call, each counted in one class only: fresh input, read from and written to the provider's
    cache, output, and output that was reasoning.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total_input(self) -> int:
        return self.input + self.cache_read + self.cache_write

    @property
    def total_output(self) -> int:
        return self.output + self.reasoning

    @property
    def total(self) -> int:
        return self.total_input + self.total_output


class Rates(NamedTuple):
    """Micro-dollars of a call, and of a token of each class of its usage."""

    call: Decimal
    tokens: tuple[Decimal, ...]

    def cost_microusd(self, usage: Usage) -> int:
        """Rounded up to a whole micro-dollar."""
        return math.ceil(sum(map(mul, self.tokens, usage), self.call))


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens. Unset: cache reads and writes cost what input costs, reasoning what output costs."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    input_usd: float
    output_usd: float
    cache_read_usd: float | None = None
    cache_write_usd: float | None = None
    reasoning_usd: float | None = None

    def __post_init__(self) -> None:
        for name in ("input_usd", "output_usd", "cache_read_usd", "cache_write_usd", "reasoning_usd"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be 0 or more")

    @property
    def rates(self) -> Rates:
        """A dollar per million tokens is a micro-dollar per token."""
        rates = (self.input_usd, self.cache_read_usd, self.cache_write_usd, self.output_usd, self.reasoning_usd)
        fallbacks = (0.0, self.input_usd, self.input_usd, 0.0, self.output_usd)
        tokens = (fallback if rate is None else rate for rate, fallback in zip(rates, fallbacks, strict=True))
        return Rates(Decimal(0), tuple(Decimal(str(each)) for each in tokens))

    def __str__(self) -> str:
        return f"{self.input_usd:g} in, {self.output_usd:g} out"


FREE = Price(0.0, 0.0)
