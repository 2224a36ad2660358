"""One call of a tool as a step of its run: parsed, given its secrets, timed, recorded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.control.calls import CalledBy
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.governed import GovernedCall, careful, kept_answer
from pilothouse.engine.intents import Ready, Verify
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.permission import Call, Declared, permit
from pilothouse.engine.resting import counted, rest
from pilothouse.engine.runaways import note_stored
from pilothouse.engine.signature import decode_result
from pilothouse.engine.steps import StepCall
from pilothouse.engine.switches import EffectGate, pass_switches
from pilothouse.engine.tools import EFFECT_KEY, Tool, ToolOptions
from pilothouse.errors import ToolError
from pilothouse.store.database import Row

TOOL_KIND = "tool"


def declared(tool: Tool) -> Declared:
    """What policies look at, of a tool."""
    return declared_by(tool.name, tool.options, tool.schema)


def declared_by(name: str, options: ToolOptions, schema: Mapping[str, Any] | None = None) -> Declared:
    return Declared(
        name,
        options.effect,
        options.platform,
        options.cost_usd,
        options.risk,
        options.amount,
        options.people,
        options.confidence,
        options.billing,
        options.data_class,
        schema,
    )


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One call, under the step name `name`."""

    attempt: Attempt
    name: str
    tool: Tool
    called_by: CalledBy

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """The tool's result; a finished call answers from its checkpoint.

        Raises ToolError for arguments that do not fit, StepError once the call has failed for good, EffectError where
        it changes the world, so that it must not just be made again, and what `permit` raises where it may not go out.
        """
        attempt, tool = self.attempt, self.tool
        if attempt.stop_reason is not None:
            await attempt.refuse_if_stopped()
        try:
            parsed = tool.validate(arguments)
        except ToolError as error:
            if self.called_by == "model":
                await self.refuse(arguments, error)
            raise
        asked, stored = self._open(parsed)
        if stored is not None:
            await note_stored(attempt, asked, stored, tool.name)
            return kept_answer(stored, tool.traits.output, tool)
        try:
            return await self._carry_out(asked, parsed)
        except ToolError as error:
            if self.called_by == "model":
                await self._governed(asked, parsed).keep_refusal(error)
            raise

    async def refuse(self, arguments: Any, error: ToolError) -> NoReturn:
        """Keeps that a model's call did not go out, and why."""
        asked, stored = self._open(arguments)
        if stored is None:
            await self._governed(asked, arguments).keep_refusal(error)
        else:
            await note_stored(self.attempt, asked, stored, self.tool.name)
        raise error

    def _open(self, arguments: Any) -> tuple[StepRequest, Row | None]:
        return self.attempt.journal.open(self.name, TOOL_KIND, {"tool": self.tool.name, "arguments": arguments})

    async def _carry_out(self, asked: StepRequest, parsed: dict[str, Any]) -> Any:
        attempt, tool = self.attempt, self.tool
        await rest(attempt, tool.name, tool.effect, self.called_by)
        await pass_switches(attempt, tool.name)
        parsed = await permit(Call(attempt, asked, declared(tool), self.called_by, tool.validate), parsed)
        governed = self._governed(asked, parsed)
        given = parsed | self._secrets() | ({EFFECT_KEY: governed.effect_id} if tool.takes_effect_key else {})

        async def call(ready: Ready, gate: EffectGate) -> str:
            step = StepCall(
                attempt,
                asked,
                tool.function,
                tool.traits,
                (),
                given,
                careful(tool.options.retry, tool),
                tool.options.timeout_seconds,
                governed.recorder(ready),
                gate,
                governed.may_put_off(ready),
            )
            return await counted(attempt, tool.name, tool.effect, step.run)

        return decode_result(await governed.carry_out(call), tool.traits.output)

    def _governed(self, asked: StepRequest, arguments: Any) -> GovernedCall:
        text = payloads.encode(to_jsonable_python(arguments, fallback=str, inf_nan_mode="strings"))
        verify = self._verify(arguments) if isinstance(arguments, Mapping) else None
        return GovernedCall(self.attempt, asked, self.tool, self.called_by, text, verify)

    def _verify(self, parsed: Mapping[str, Any]) -> Verify | None:
        verify, threads = self.tool.options.verify, self.attempt.services.threads
        if verify is None:
            return None

        async def ask() -> Any:
            answer = verify(**parsed) if inspect.iscoroutinefunction(verify) else threads.run(verify, **parsed)
            return await answer

        return ask

    def _secrets(self) -> dict[str, str]:
        """The secrets that the function takes; from now on they are taken out of whatever is written."""
        claim, found = self.attempt.claim, dict[str, str]()
        for parameter, name in self.tool.secrets.items():
            secrets = self.attempt.services.around.secrets
            if secrets is None:
                raise ToolError(f"tool {self.tool.name!r} wants the secret {name!r}, and here are none")
            found[parameter] = secrets.find(name, agent=claim.agent, tenant=claim.tenant)
            self.attempt.hide(found[parameter])
        return found
