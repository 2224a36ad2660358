"""What a question to a model may cost at most, reserved before it goes out; and what to do where that is too much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pilothouse.clock import Clock, new_id, to_datetime
from pilothouse.control.ledger import Charge, Hold, Ledger
from pilothouse.domain.limits import NOTHING, Amounts, Payer, Unit
from pilothouse.domain.prices import Usage
from pilothouse.errors import LimitReached
from pilothouse.llm.prices import PriceList
from pilothouse.llm.prompts import Asker, most_tokens
from pilothouse.llm.turns import Turn

if TYPE_CHECKING:
    from pydantic_ai.settings import ModelSettings

LEAST_OUTPUT_TOKENS = 256
"""An answer that would be cut shorter than this, or than what was asked for, is not worth its question."""

CLAMPS = 3
"""How often a question is made shorter until it fits; what others reserve meanwhile may make it too long again."""

STANDING_SECONDS = 1.0
MAX_STANDINGS = 10_000


class Granted(NamedTuple):
    """A turn that may go out, with the settings that were affordable; why, where its answer was made shorter."""

    turn: Turn
    hold: Hold
    clamped: str | None = None


class Spending:
    """Reservations of one worker's questions to models."""

    def __init__(self, ledger: Ledger, prices: PriceList, clock: Clock) -> None:
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._standing: dict[tuple[str, str, str | None], tuple[float, float]] = {}

    async def free_share(self, asker: Asker) -> float:
        """How much is left, from 1 to 0, of the tightest daily or monthly limit on money; about a second old."""
        key = _standing_key(asker)
        share, seen_at = self._standing.get(key, (1.0, float("-inf")))
        if self._clock.monotonic() - seen_at > STANDING_SECONDS:
            share = await self._ledger.free_share(_payer(asker, None))
            self._remember(asker, share)
        return share

    def _remember(self, asker: Asker, share: float) -> None:
        if len(self._standing) >= MAX_STANDINGS:
            self._standing.clear()
        self._standing[_standing_key(asker)] = share, self._clock.monotonic()

    async def grant(self, turn: Turn) -> Granted:
        """Reserves the turn's worst case; where that is too much, with a shorter answer. Raises LimitReached."""
        wanted = most_out = turn.settings.get("max_tokens") or turn.route.max_output_tokens
        going_in, least = most_tokens(turn.prompt, turn.route.max_input_tokens), min(LEAST_OUTPUT_TOKENS, most_out)
        tries, clamped = 0, None
        while True:
            hold = self._hold(turn, going_in, most_out)
            try:
                self._remember(turn.prompt.asker, await self._ledger.reserve(hold))
            except LimitReached as error:
                if most_out <= least:
                    raise  # said of the shortest answer, so that it waits for what would do
                tries += 1
                fitting = self._affordable(turn, going_in, most_out, error) if tries < CLAMPS else least
                most_out = max(least, min(most_out - 1, fitting))
                clamped = f"its answer was held to {most_out:,} of {wanted:,} tokens: {error}"
                continue
            return Granted(
                turn if most_out == turn.settings.get("max_tokens") else _held_to(turn, most_out), hold, clamped
            )

    async def give_back(self, hold: Hold, reason: str) -> None:
        """The question cost nothing."""
        await self._ledger.settle(Charge(hold.id, NOTHING, reason))

    async def close(self) -> None:
        await self._ledger.close()

    def _hold(self, turn: Turn, going_in: int, most_out: int) -> Hold:
        asker = turn.prompt.asker
        amounts = Amounts(self._worst_cost(turn, going_in, most_out), going_in + most_out)
        payer = _payer(asker, turn.id.provider)
        return Hold(new_id(), asker.step, asker.attempt, payer, amounts, str(turn.id))

    def _worst_cost(self, turn: Turn, going_in: int, most_out: int) -> int:
        """Every token in the class that costs most: nothing read from the provider's cache, all of the answer reasoning
        where that costs more.
        """
        at = to_datetime(turn.started_at)
        usages = (
            Usage(**{sent: going_in, said: most_out})
            for sent in ("input", "cache_write")
            for said in ("output", "reasoning")
        )
        return max(self._prices.cost(turn.id, usage, at).microusd for usage in usages)

    def _affordable(self, turn: Turn, going_in: int, most_out: int, error: LimitReached) -> int:
        """The longest answer that the limit has room for, in tokens."""
        free, unit = error.reached.free, error.reached.unit
        if unit == Unit.TOKENS:
            return free - going_in
        if unit != Unit.MICROUSD:
            return 0
        low, high = 0, most_out
        while low < high:
            middle = (low + high + 1) // 2
            if self._worst_cost(turn, going_in, middle) <= free:
                low = middle
            else:
                high = middle - 1
        return low


def _held_to(turn: Turn, most_out: int) -> Turn:
    settings: ModelSettings = {**turn.settings, "max_tokens": most_out}
    return replace(turn, settings=settings)


def _payer(asker: Asker, platform: str | None) -> Payer:
    return Payer(asker.run_id, asker.tenant, asker.agent, asker.user_id, platform, None)


def _standing_key(asker: Asker) -> tuple[str, str, str | None]:
    return asker.tenant, asker.agent, asker.user_id
