"""Governed calls: what every call of a tool goes through, whoever made the tool, before it goes out and after it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NoReturn, Protocol

from pydantic import TypeAdapter

from pilothouse import payloads
from pilothouse.control.bookings import Booking
from pilothouse.control.calls import CalledBy, StepCalls, ToolCall
from pilothouse.control.effects import EffectEnding, Intent
from pilothouse.control.ledger import Charge
from pilothouse.domain.effects import Effect
from pilothouse.domain.limits import Amounts, Payer
from pilothouse.domain.retries import RetryPolicy
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.failures import describe_error, may_have_happened
from pilothouse.engine.intents import Found, Intention, Intents, Ready, Verify
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.limits import stay_within_calls
from pilothouse.engine.runaways import note_error, note_result
from pilothouse.engine.steps import CallRecord, CallRecorder, answer_of, make_checkpoint
from pilothouse.engine.switches import EffectGate, pass_switches
from pilothouse.errors import EffectError, MayHaveHappened, RetryLater, StepError, ToolError, Withheld
from pilothouse.store.database import Row
from pilothouse.telemetry.events import EffectFailed, ToolCalled, ToolPutOff

REASON_SHOWN = 500
MAX_PUT_OFF = 100
"""How often a tool may put off one call; then being told to come back later is a failure like others."""


class CalledTool(Protocol):
    """What a call must know of its tool. `is_repeatable`: to call twice is to call once."""

    @property
    def name(self) -> str: ...
    @property
    def effect(self) -> Effect: ...
    @property
    def platform(self) -> str | None: ...
    @property
    def cost_microusd(self) -> int: ...
    @property
    def is_repeatable(self) -> bool: ...


def amounts_of(tool: CalledTool) -> Amounts:
    """What one call uses."""
    return Amounts(tool.cost_microusd, 0, int(tool.effect.changes_the_world))


def is_repeatable(tool: CalledTool) -> bool:
    """Whether the engine may make a call again whose outcome is not known, or that failed."""
    return tool.is_repeatable or not tool.effect.changes_the_world


def kept_answer(stored: Row, adapter: TypeAdapter[Any] | None, tool: CalledTool) -> Any:
    """What a finished call came to. Raises what it raised when it failed."""
    try:
        return answer_of(stored, adapter)
    except StepError as error:
        raise _judged(error, tool) from None


def _judged(error: StepError, tool: CalledTool) -> StepError:
    """A failed call that cannot just be made again fails its run, unless the handler knows better."""
    return error if is_repeatable(tool) else EffectError(error.step or "", error.error_type, error.message)


def careful(policy: RetryPolicy, tool: CalledTool) -> RetryPolicy:
    """The tool's own tries, without those after which the world could be changed twice."""
    if is_repeatable(tool):
        return policy
    return replace(policy, unless=(*policy.unless, TimeoutError, MayHaveHappened))


@dataclass(frozen=True)
class GovernedCall:
    """One call of a tool, under the step `asked`. `arguments` is their JSON."""

    attempt: Attempt
    asked: StepRequest
    tool: CalledTool
    called_by: CalledBy
    arguments: str
    verify: Verify | None = None

    @cached_property
    def effect_id(self) -> str:
        """The same for every try of this call, so that a service can tell; another for every other call."""
        facts = payloads.encode([self.attempt.claim.run_id, self.asked.key, self.tool.name, self.arguments])
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    async def carry_out(self, call: Callable[[Ready, EffectGate], Awaitable[str]]) -> str:
        """The result of the call, as JSON, past the kill switches and under its intent.

        It is noted, so that a run which makes the same call over and over is halted. Suspends the run where the call is
        put off. Raises StepError once it has failed, EffectError where it must not just be made again.
        """
        await stay_within_calls(self.attempt, self.asked.key, self.attempt.journal.count(self.asked.kind))
        try:
            result = await self._past_switches(call)
        except StepError as error:
            await note_error(self.attempt, self.asked, error)
            raise _judged(error, self.tool) from error.__cause__
        await note_result(self.attempt, self.asked, self.tool.name, result)
        return result

    async def _past_switches(self, call: Callable[[Ready, EffectGate], Awaitable[str]]) -> str:
        """An intent under which nothing went out, because a switch was tripped in that moment, is withdrawn.

        The call is made once it may be.
        """
        attempt, intents = self.attempt, self._intents()
        while True:
            await pass_switches(attempt, self.tool.name)
            gate = EffectGate(attempt, self.tool.name)
            try:
                ready = await intents.write()
                if isinstance(ready, Found):
                    return ready.result
                with attempt.busy():
                    return await call(ready, gate)
            except Withheld:
                await intents.withdraw(has_tried=gate.has_started)
            except RetryLater as error:
                await self._put_off(intents, error)
            except asyncio.CancelledError:
                if attempt.stop_reason == "released" and not gate.has_started:
                    await intents.withdraw(has_tried=False)
                raise

    async def _put_off(self, intents: Intents, error: RetryLater) -> NoReturn:
        claim, tool = self.attempt.claim, self.tool
        event = ToolPutOff(claim.run_id, claim.agent, tool.name, error.seconds, str(error))
        self.attempt.services.emitter.emit(event)
        called = self._called(False, self.attempt.now_us())
        if tool.effect.changes_the_world:
            called = called._replace(effect_id=self.effect_id)
        await intents.put_off(error, StepCalls(tools=(called,)))

    @staticmethod
    def may_put_off(ready: Ready) -> bool:
        return ready.number < MAX_PUT_OFF

    def _intents(self) -> Intents:
        tool, claim, amounts = self.tool, self.attempt.claim, amounts_of(self.tool)
        call = Intention(
            asked=self.asked,
            tool=tool.name,
            payer=Payer(claim.run_id, claim.tenant, claim.agent, claim.user_id, tool.platform, tool.name),
            amounts=amounts,
            intent=self._intent() if tool.effect.changes_the_world else None,
            is_repeatable=is_repeatable(tool),
            verify=self.verify,
        )
        return Intents(self.attempt, call)

    def _intent(self) -> Intent:
        claim = self.attempt.claim
        return Intent(
            id=self.effect_id,
            run_id=claim.run_id,
            key=self.asked.key,
            attempt=claim.attempt,
            tenant=claim.tenant,
            agent=claim.agent,
            tool=self.tool.name,
            platform=self.tool.platform,
            effect=self.tool.effect,
            arguments_hash=payloads.digest(self.arguments),
            arguments=self.attempt.redact(self.arguments),
            fingerprint=self.attempt.agent.version.fingerprint,
        )

    def recorder(self, ready: Ready) -> CallRecorder:
        """Makes the record of the call once it has ended."""
        return lambda error, started_at: self._record(ready.reservation_id, error, started_at)

    async def keep_refusal(self, error: ToolError) -> None:
        """Keeps that the call did not go out, so that no later attempt makes it: its model was told so, and went on."""
        attempt, started_at, told = self.attempt, self.attempt.now_us(), describe_error(error)
        calls = StepCalls(tools=(self._called(False, started_at),))
        checkpoint = make_checkpoint(attempt, self.asked, error=told, started_at=started_at, tries=1)
        with attempt.busy():
            await attempt.services.writer.checkpoint(checkpoint._replace(calls=calls))
        await note_error(attempt, self.asked, StepError(self.asked.key, type(error).__name__, str(error)))

    def _record(self, reservation_id: str | None, error: Exception | None, started_at: int) -> CallRecord:
        """What gave no answer in time may have happened, so that its reservation stays."""
        called = self._called(error is None, started_at)
        if reservation_id is None:
            return CallRecord(StepCalls(tools=(called,)))
        amounts = amounts_of(self.tool)
        used = amounts if error is None else amounts._replace(microusd=0)
        how: EffectEnding = "succeeded" if error is None else "failed"
        if error is not None and may_have_happened(error):
            how = "unknown"
        ends = (self._intent().ended(how),) if self.tool.effect.changes_the_world else ()
        if ends and error is not None:
            self._tell_failed(how, error)
        charges = () if how == "unknown" else (Charge(reservation_id, used),)
        called = called._replace(
            cost_microusd=used.microusd,
            reservation_id=reservation_id,
            effect_id=self.effect_id if ends else None,
        )
        return CallRecord(StepCalls(tools=(called,)), Booking(charges=charges, ends=ends))

    def _tell_failed(self, how: EffectEnding, error: Exception) -> None:
        claim, tool = self.attempt.claim, self.tool.name
        reason = self.attempt.redact(f"{type(error).__name__}: {error}")[:REASON_SHOWN]
        event = EffectFailed(claim.run_id, claim.agent, tool, self.effect_id, how, reason)
        self.attempt.services.emitter.emit(event)

    def _called(self, is_good: bool, started_at: int) -> ToolCall:
        """The record of the call, which is told as an event too."""
        attempt, tool = self.attempt, self.tool
        claim, latency_us = attempt.claim, attempt.now_us() - started_at
        outcome: Literal["succeeded", "failed"] = "succeeded" if is_good else "failed"
        emitter, arguments = attempt.services.emitter, attempt.redact(self.arguments)
        emitter.emit(
            ToolCalled(
                claim.run_id,
                claim.agent,
                tool.name,
                self.called_by,
                outcome,
                latency_us / 1000,
                self.asked.key,
                tool.effect,
                started_at,
                arguments if emitter.wants_content else None,
            )
        )
        return ToolCall(
            tool=tool.name,
            effect=tool.effect,
            platform=tool.platform,
            called_by=self.called_by,
            arguments=arguments,
            outcome=outcome,
            cost_microusd=0,
            started_at=started_at,
            latency_us=latency_us,
        )
