"""The gateway: one question through a route's models in their order, until one answers.

It alone tries again: the providers' clients do not. Each model that is passed over leaves a record with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from pilothouse import payloads
from pilothouse.clock import Clock, to_datetime
from pilothouse.control.calls import CallOutcome, ModelCall
from pilothouse.control.ledger import Hold
from pilothouse.domain.prices import Price, Usage
from pilothouse.domain.providers import Provider
from pilothouse.domain.routes import DEFAULT_ROUTE, ModelId, Route, parse_model
from pilothouse.errors import (
    AnswerMalformed,
    ConfigError,
    LimitReached,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    PromptTooLong,
    StoreUnavailable,
)
from pilothouse.llm.answers import KeptAnswer, KeptAnswers, seconds_kept
from pilothouse.llm.faults import ADVICE, MAY_BE_PAID, Fault, read_fault
from pilothouse.llm.messages import dump_messages
from pilothouse.llm.prices import PriceList, split_usage
from pilothouse.llm.prompts import Answer, Prompt, estimate_tokens
from pilothouse.llm.providers import Providers
from pilothouse.llm.script import Responder
from pilothouse.llm.spending import Granted, Spending
from pilothouse.llm.turns import Shared, Turn, Turns
from pilothouse.telemetry.events import Emitter, LimitOverrun, ModelAnswered, ModelDegraded, ModelFailed

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.settings import ModelSettings

UNKNOWN_WAIT_SECONDS = 1.0
"""How long to leave models alone that failed without saying for how long."""

TIGHT_CACHE_SECONDS = 3600.0
"""How long answers are kept while a budget nears its end."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What changes near the end of a budget: at `cache_at` of it answers are kept, at `degrade_at` only `degrade_route`
    is asked. Both are what is left, from 1 to 0.
    """

    cache_at: float = 0.0
    degrade_at: float = 0.0
    degrade_route: str | None = None


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the settings say of models. `offline_model` answers in the place of every other one."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    offline_model: str | None = None
    budgets: BudgetSettings = field(default_factory=BudgetSettings)


class Gateway:
    """One worker's way to all models. `responders` answer for the offline models of their names."""

    def __init__(
        self,
        settings: GatewaySettings,
        shared: Shared,
        clock: Clock,
        emitter: Emitter,
        responders: Mapping[str, Responder] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._emitter = emitter
        self._turns = Turns(Providers(settings.providers, responders or {}), shared, clock, emitter)
        self._prices = PriceList(settings.prices)
        self._kept = KeptAnswers(shared.answers)
        self._spending = Spending(shared.ledger, self._prices, clock)

    async def close(self) -> None:
        await self._turns.close()
        await self._spending.close()

    def route(self, name: str | None) -> tuple[str, Route]:
        """A route by its name, by a model's (`openai:gpt-5-mini`), or the default one. Raises ConfigError."""
        routes, offline = self._settings.routes, self._settings.offline_model
        if name is None:
            name = DEFAULT_ROUTE if DEFAULT_ROUTE in routes or not routes else next(iter(routes))
        if name in routes:
            return name, routes[name] if offline is None else replace(routes[name], models=(offline,))
        if offline is not None or ":" in name:
            return name, Route((offline or name,))
        known = ", ".join(sorted(routes)) or "none"
        raise ConfigError(
            f"there is no route {name!r} (routes: {known}); in pilothouse.toml, [routes.{name}] needs "
            'models = ["openai:gpt-5-mini"]; without a network: PILOTHOUSE_OFFLINE_MODEL=offline:echo'
        )

    def _route_of(self, prompt: Prompt) -> tuple[str, Route]:
        """A model that a framework brings along needs no route; with an offline model it is not asked at all."""
        own = prompt.own_model
        if own is None or self._settings.offline_model is not None:
            return self.route(prompt.route)
        id = f"{own.system}:{own.model_name}"
        return id, Route((id,))

    async def answer(self, prompt: Prompt) -> Answer:
        """The first answer that a model of the route gives.

        Near the end of a budget the smaller route is asked, and answers are kept; beyond it a kept answer must do.
        Raises LimitReached where none of that is affordable; ModelUnavailable, with when to ask again, where all models
        are away or limited for now; AnswerMalformed where what came was no answer; ModelRefused where somebody has to
        change something first; PromptTooLong, UnknownPrice and ConfigError.
        """
        share = await self._spending.free_share(prompt.asker)
        refused: LimitReached | None = None
        ways, passed = self._ways(prompt, share)
        for name, route in ways:
            try:
                return (await self._ask(name, route, prompt, share)).after(passed)
            except LimitReached as error:
                refused = _sooner(refused, error)
                passed += _calls_of(error)
            except ModelError as error:
                error.calls = (*passed, *error.calls)
                raise
        assert refused is not None
        name, route = self._route_of(prompt)
        kept = await self._kept_answer(name, route, prompt) or _raise(refused)
        return kept.after(passed)

    def _ways(self, prompt: Prompt, share: float) -> tuple[list[tuple[str, Route]], tuple[ModelCall, ...]]:
        """The routes to ask, in their order: with little left only the smaller one, if there is one, and a record of
        that.
        """
        budgets = self._settings.budgets
        usual = self._route_of(prompt)
        if budgets.degrade_route is None or budgets.degrade_route == usual[0]:
            return [usual], ()
        smaller = self.route(budgets.degrade_route)
        if share > budgets.degrade_at:
            return [usual, smaller], ()
        self._emitter.emit(ModelDegraded(prompt.asker.run_id, prompt.asker.agent, usual[0], smaller[0], share))
        return [smaller], (self._degraded_call(usual[0], _models(usual[1], prompt)[0], share),)

    async def _kept_answer(self, name: str, route: Route, prompt: Prompt) -> Answer | None:
        started_at = self._clock.now_us()
        kept = await self._kept.find(prompt, self._kept.question(route, prompt))
        return None if kept is None else Answer(kept.response, (self._cached_call(name, kept.model, started_at),))

    async def _ask(self, name: str, route: Route, prompt: Prompt, share: float) -> Answer:
        seconds = seconds_kept(route, prompt)
        if share <= self._settings.budgets.cache_at:
            seconds = max(seconds, TIGHT_CACHE_SECONDS)
        if seconds > 0 and (kept := await self._kept_answer(name, route, prompt)):
            return kept
        _check_count(name, route, prompt)
        settings, tokens = _settings(name, route, prompt)
        passed = Passed(name)
        for id in _models(route, prompt):
            turn = Turn(id, name, route, prompt, settings, tokens, self._clock.now_us())
            self._prices.require(id, to_datetime(turn.started_at))
            outcome = await self._within_limits(turn, passed)
            if not isinstance(outcome, Fault):
                response, call = outcome
                if seconds > 0:
                    question = self._kept.question(route, prompt)
                    with suppress(StoreUnavailable):  # the answer is paid; that it is not kept must not lose it
                        await self._kept.keep(prompt, question, KeptAnswer(str(id), response), seconds=seconds)
                return Answer(response, (*passed.calls, call))
            passed.note(id, outcome, self._failed_call(turn, outcome))
            if prompt.has_pieces:
                break  # what was heard of one model cannot be gone on with by another
        raise passed.error()

    async def _within_limits(self, turn: Turn, passed: Passed) -> tuple[ModelResponse, ModelCall] | Fault:
        """The turn, with its worst case reserved. What failed before it was counted gives its reservation back."""
        try:
            granted = await self._spending.grant(turn)
        except LimitReached as error:
            passed.refused = _sooner(passed.refused, error)
            return Fault("over_limit", str(error), was_asked=False)
        outcome = await self._take(turn, granted)
        if not isinstance(outcome, Fault):
            call = self._answered_call(turn, outcome)._replace(reservation_id=granted.hold.id)
            if granted.clamped is not None:
                call = call._replace(reason="over_limit", message=granted.clamped)
            self._tell_overrun(granted.hold, call)
            return outcome, call
        if outcome.kind not in MAY_BE_PAID:
            await self._spending.give_back(granted.hold, outcome.kind)
        return outcome

    async def _take(self, turn: Turn, granted: Granted) -> ModelResponse | Fault:
        """What fails before anybody was asked costs nothing; with the store away nobody knows how far it came."""
        try:
            return await self._turns.take(granted.turn)
        except Exception as error:
            if read_fault(error) is None and not isinstance(error, StoreUnavailable):
                await self._spending.give_back(granted.hold, "it was not asked")
            raise

    def _tell_overrun(self, hold: Hold, call: ModelCall) -> None:
        reserved, used = hold.amounts, (call.cost_microusd, call.usage.total)
        if used[0] > reserved.microusd or used[1] > reserved.tokens:
            payer = hold.payer
            self._emitter.emit(
                LimitOverrun(
                    payer.run_id, payer.agent, call.model, reserved.microusd, used[0], reserved.tokens, used[1]
                )
            )

    # --- records ---------------------------------------------------------------------------

    def _answered_call(self, turn: Turn, response: ModelResponse) -> ModelCall:
        usage = split_usage(response.usage)
        cost = self._prices.cost(turn.id, usage, to_datetime(turn.started_at))
        call = self._call(turn, "answered", usage)
        self._tell_answered(turn, response, call._replace(cost_microusd=cost.microusd))
        raw = payloads.encode(_raw_usage(response))
        return call._replace(raw_usage=raw, cost_microusd=cost.microusd, price=cost.source)

    def _tell_answered(self, turn: Turn, response: ModelResponse, call: ModelCall) -> None:
        asker, usage, has_content = turn.prompt.asker, call.usage, self._emitter.wants_content
        self._emitter.emit(
            ModelAnswered(
                asker.run_id,
                asker.agent,
                call.model,
                call.route,
                usage.total,
                call.cost_microusd,
                call.latency_us / 1000,
                asker.step,
                usage.total_input,
                usage.total_output,
                call.started_at,
                dump_messages(turn.prompt.messages) if has_content else None,
                dump_messages([response]) if has_content else None,
            )
        )

    def _failed_call(self, turn: Turn, fault: Fault) -> ModelCall:
        call = self._call(turn, "failed" if fault.was_asked else "skipped", Usage())
        asker = turn.prompt.asker
        took_ms, told = call.latency_us / 1000, (fault.kind, fault.message, asker.step)
        event = ModelFailed(asker.run_id, asker.agent, call.model, call.route, *told, took_ms, call.started_at)
        self._emitter.emit(event)
        return call._replace(reason=fault.kind, message=fault.message)

    def _cached_call(self, route_name: str, model: str, started_at: int) -> ModelCall:
        latency = self._clock.now_us() - started_at
        return ModelCall(route_name, model, "cached", None, None, Usage(), None, 0, None, started_at, latency)

    def _degraded_call(self, route_name: str, model: ModelId, share: float) -> ModelCall:
        """The usual route, which is not asked because little of a budget is left."""
        smaller, at = self._settings.budgets.degrade_route, self._settings.budgets.degrade_at
        told = f"{share:.0%} of the tightest budget is left, and at {at:.0%} route {smaller!r} is asked (degrade_at)"
        now = self._clock.now_us()
        return ModelCall(route_name, str(model), "skipped", "over_limit", told, Usage(), None, 0, None, now, 0)

    def _call(self, turn: Turn, outcome: CallOutcome, usage: Usage) -> ModelCall:
        started, latency = turn.started_at, self._clock.now_us() - turn.started_at
        return ModelCall(turn.route_name, str(turn.id), outcome, None, None, usage, None, 0, None, started, latency)


def _models(route: Route, prompt: Prompt) -> Sequence[ModelId]:
    if prompt.own_model is not None:
        return (ModelId(prompt.own_model.system, prompt.own_model.model_name),)
    return tuple(parse_model(model) for model in route.models)


def _check_count(name: str, route: Route, prompt: Prompt) -> None:
    if prompt.asker.calls_before >= route.max_calls_per_run:
        raise ModelRefused(
            f"run {prompt.asker.run_id} has asked models {prompt.asker.calls_before} times, and route {name!r} allows "
            f"{route.max_calls_per_run} (max_calls_per_run); look for a loop, or raise the limit"
        )


def _settings(name: str, route: Route, prompt: Prompt) -> tuple[ModelSettings, int]:
    """The settings under the route's caps, and about how many tokens go in. Raises PromptTooLong."""
    tokens = estimate_tokens(prompt.messages)
    if tokens > route.max_input_tokens:
        raise PromptTooLong(name, tokens, route.max_input_tokens)
    settings: ModelSettings = {**prompt.settings}
    if prompt.own_model is not None:
        settings["max_retries"] = 0
    settings["max_tokens"] = min(settings.get("max_tokens") or route.max_output_tokens, route.max_output_tokens)
    if route.temperature is not None:
        settings.setdefault("temperature", route.temperature)
    return settings, tokens


def _raw_usage(response: ModelResponse) -> dict[str, int]:
    usage = response.usage
    counted = {name: value for name, value in vars(usage).items() if isinstance(value, int) and value}
    return counted | usage.details


class Passed:
    """The models of a route that were passed over, and why."""

    def __init__(self, route: str) -> None:
        self._route = route
        self._faults: list[tuple[ModelId, Fault]] = []
        self.calls: list[ModelCall] = []
        self.refused: LimitReached | None = None

    def note(self, id: ModelId, fault: Fault, call: ModelCall) -> None:
        self._faults.append((id, fault))
        self.calls.append(call)

    def error(self) -> ModelError | LimitReached:
        """Of a prompt that no model has answered: to wait where that helps, else to try again or change something."""
        told = "; ".join(f"{id}: {fault.kind}, {fault.message}" for id, fault in self._faults)
        temporary = [fault for _, fault in self._faults if fault.is_temporary]
        if temporary:
            wait = min(fault.retry_after_seconds or UNKNOWN_WAIT_SECONDS for fault in temporary)
            was_asked = any(fault.was_asked for _, fault in self._faults)
            what = f"no model of route {self._route!r} answers now: {told}"
            return ModelUnavailable(what, wait, self.calls, was_asked=was_asked)
        if self.refused is not None:
            self.refused.calls = tuple(self.calls)
            return self.refused
        if any(fault.kind == "malformed" for _, fault in self._faults):
            return AnswerMalformed(f"no model of route {self._route!r} gave an answer: {told}", self.calls)
        advice = dict.fromkeys(ADVICE[fault.kind] for _, fault in self._faults if fault.kind in ADVICE)
        refused = f"no model of route {self._route!r} takes the request: {told}"
        return ModelRefused("; ".join([refused, *advice]), self.calls)


def _calls_of(error: LimitReached) -> tuple[ModelCall, ...]:
    return tuple(call for call in error.calls if isinstance(call, ModelCall))


def _sooner(one: LimitReached | None, other: LimitReached) -> LimitReached:
    """Of two refusals the one after which there may be room sooner: by what others give back, or by the calendar."""

    def waits(error: LimitReached) -> tuple[bool, float]:
        reached = error.reached
        return not reached.is_contended, float("inf") if reached.frees_at is None else reached.frees_at

    return other if one is None else min(one, other, key=waits)


def _raise(error: LimitReached) -> NoReturn:
    raise error
