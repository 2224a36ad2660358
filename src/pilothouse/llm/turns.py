"""One model's turn at a prompt: past its breaker, with the first of its keys that may be used now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pilothouse.clock import Clock
from pilothouse.control.breakers import Breakers
from pilothouse.control.buckets import Buckets, Wanted
from pilothouse.control.ledger import Ledger
from pilothouse.control.model_answers import ModelAnswers
from pilothouse.domain.breakers import BreakerState
from pilothouse.domain.buckets import Bucket
from pilothouse.domain.routes import OFFLINE, ModelId, Route
from pilothouse.errors import StoreUnavailable
from pilothouse.llm.faults import Fault, as_kind, read_fault
from pilothouse.llm.headers import blocked_seconds
from pilothouse.llm.prices import split_usage
from pilothouse.llm.prompts import Prompt
from pilothouse.llm.providers import OWN_KEY, Key, Providers
from pilothouse.telemetry import tracing
from pilothouse.telemetry.events import BreakerOpened, Emitter

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

RATE_LIMITED_SECONDS = 10.0
"""How long a key is left alone after a 429 that names no time."""

WRONG_KEY_SECONDS = 300.0
"""How long a key is left alone that the provider does not accept, or whose account is empty."""

CLOSE_SECONDS = 1.0

NEXT_KEY = frozenset({"rate_limited", "wrong_key", "quota_exceeded"})
"""Faults of a key: another one may do."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all workers know together."""

    breakers: Breakers
    buckets: Buckets
    answers: ModelAnswers
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Turn:
    """`tokens` is about how many go in; `settings` stand under the route's caps."""

    id: ModelId
    route_name: str
    route: Route
    prompt: Prompt
    settings: ModelSettings
    tokens: int
    started_at: int

    @property
    def breaker(self) -> str:
        return f"model:{self.id}"


class Turns:
    """Takes turns, and keeps what they teach of breakers and limits where all workers see it."""

    def __init__(self, providers: Providers, shared: Shared, clock: Clock, emitter: Emitter) -> None:
        self._providers = providers
        self._shared = shared
        self._clock = clock
        self._emitter = emitter
        self._blocking = set[asyncio.Task[None]]()
        providers.on_headers = self._hear

    async def take(self, turn: Turn) -> ModelResponse | Fault:
        """The model's answer, or why there is none."""
        wait_us = await self._shared.breakers.wait_us(turn.breaker)
        if wait_us > 0:
            return Fault("breaker_open", "its circuit breaker is open", wait_us / 1_000_000, was_asked=False)
        fault: Fault | None = None
        keys = self._providers.keys(turn.id.provider) if turn.prompt.own_model is None else [OWN_KEY]
        for key in keys:
            outcome = await self._with_key(turn, key)
            if not isinstance(outcome, Fault):
                return outcome
            fault = outcome
            if fault.kind not in NEXT_KEY:
                break
        return fault or self._no_key(turn.id)

    async def close(self) -> None:
        if self._blocking:
            await asyncio.wait(self._blocking, timeout=CLOSE_SECONDS)
        await self._providers.close()

    def _no_key(self, id: ModelId) -> Fault:
        names = " or ".join(self._providers.provider(id.provider).keys)
        told = f"there is no key for provider {id.provider!r}: set {names} in the worker's environment"
        return Fault("no_key", told, was_asked=False)

    async def _with_key(self, turn: Turn, key: Key) -> ModelResponse | Fault:
        taken = await self._take(turn, key)
        if isinstance(taken, Fault):
            return taken
        outcome = await self._ask(turn, key)
        if isinstance(outcome, Fault):
            await self._learn(turn, key, outcome)
            if outcome.kind in NEXT_KEY:
                return replace(outcome, message=f"{outcome.message} ({key})")
        else:
            with suppress(
                StoreUnavailable
            ):  # the answer is paid; what it teaches of limits can be lost, it must not be
                await self._shared.breakers.succeeded(turn.breaker)
                await self._settle_tokens(taken, outcome)
        return outcome

    async def _ask(self, turn: Turn, key: Key) -> ModelResponse | Fault:
        tracing.enter_step(turn.prompt.asker.step)
        own = turn.prompt.own_model
        with self._providers.model(turn.id, key) if own is None else nullcontext(own) as model:
            return await self._ask_model(turn, model)

    async def _ask_model(self, turn: Turn, model: Model) -> ModelResponse | Fault:
        if turn.prompt.may_go_out is not None:
            await turn.prompt.may_go_out()
        try:
            async with asyncio.timeout(turn.route.timeout_seconds):
                response = await _request(model, turn)
        except Exception as error:
            fault = read_fault(error)
            if fault is None:
                raise
            return fault
        return response if response.parts else Fault("malformed", "the answer was empty")

    # --- what a fault teaches --------------------------------------------------------------

    async def _learn(self, turn: Turn, key: Key, fault: Fault) -> None:
        if fault.is_sick:
            after = await self._shared.breakers.failed(turn.breaker, f"{fault.kind}: {fault.message}")
            if after.state == BreakerState.OPEN:
                lasts = (after.open_until - after.changed_at) / 1_000_000
                self._emitter.emit(BreakerOpened(after.name, lasts, after.reason))
        if fault.kind in NEXT_KEY:
            default = RATE_LIMITED_SECONDS if fault.kind == "rate_limited" else WRONG_KEY_SECONDS
            seconds = fault.retry_after_seconds or default
            await self._shared.buckets.block(_bucket_name(turn.id, key), fault.kind, seconds=seconds)

    def _hear(self, id: ModelId, key: Key, headers: Mapping[str, str]) -> None:
        """A provider that says it is used up is left alone until it says there is room again."""
        seconds = blocked_seconds(headers, self._clock.now_us())
        if seconds is None:
            return
        block = self._shared.buckets.block(_bucket_name(id, key), "rate_limited", seconds=seconds)
        blocking = asyncio.get_running_loop().create_task(block)
        self._blocking.add(blocking)
        blocking.add_done_callback(self._blocking.discard)

    # --- limits ----------------------------------------------------------------------------

    async def _take(self, turn: Turn, key: Key) -> Sequence[Wanted] | Fault:
        """Takes room for one request and its tokens, at their most; what was taken, or when there is room."""
        blocked = await self._shared.buckets.blocked(_bucket_name(turn.id, key))
        if blocked is not None:
            told = f"{key} rests after {blocked.reason}"
            return Fault(as_kind(blocked.reason), told, blocked.seconds, was_asked=False)
        wanted = self._wanted(turn, key)
        wait_us = await self._shared.buckets.take(wanted, turn.prompt.asker.lane) if wanted else 0
        if wait_us > 0:
            told = f"the limit in [providers.{turn.id.provider}] is used up"
            return Fault("rate_limited", told, wait_us / 1_000_000, was_asked=False)
        return wanted

    def _wanted(self, turn: Turn, key: Key) -> list[Wanted]:
        if turn.id.provider == OFFLINE or turn.prompt.own_model is not None:
            return []
        provider, name = self._providers.provider(turn.id.provider), _bucket_name(turn.id, key)
        wanted: list[Wanted] = []
        if provider.requests_per_minute is not None:
            wanted.append((Bucket(f"{name}:requests", provider.requests_per_minute), 1))
        if provider.tokens_per_minute is not None:
            most = turn.tokens + (turn.settings.get("max_tokens") or 0)
            wanted.append((Bucket(f"{name}:tokens", provider.tokens_per_minute), most))
        return wanted

    async def _settle_tokens(self, taken: Sequence[Wanted], response: ModelResponse) -> None:
        """Gives back what was taken beyond what was used."""
        used = split_usage(response.usage).total
        returned = [(bucket, units - used) for bucket, units in taken if bucket.name.endswith(":tokens")]
        if returned and used:
            await self._shared.buckets.give_back(returned)


def _bucket_name(id: ModelId, key: Key) -> str:
    return f"{id}:{key.mark}"


async def _request(model: Model, turn: Turn) -> ModelResponse:
    prompt = turn.prompt
    messages = model.prepare_messages(list(prompt.messages), prompt.parameters)
    if prompt.on_piece is None:
        return await model.request(messages, turn.settings, prompt.parameters)
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    async with model.request_stream(messages, turn.settings, prompt.parameters) as stream:
        async for event in stream:
            match event:
                case PartStartEvent(part=TextPart(content=text)) if text:
                    prompt.on_piece(text)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    prompt.on_piece(text)
        return stream.get()
