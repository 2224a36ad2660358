"""Permission: before a call that changes the world or costs money goes out, the policies speak of it.

What they allow goes on, what they deny does not, and what they ask about waits for people. A call whose intent is in
the journal already has been through here, so nothing is asked again after a crash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.control.calls import CalledBy
from pilothouse.domain.approvals import Memo
from pilothouse.domain.effects import Effect
from pilothouse.domain.policies import ALLOWED, Billing, Decision, Proposal, Verdict, is_stricter
from pilothouse.engine.approvals import APPROVAL_KIND, Approved, Question, ask, decided, judge
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.steps import answer_of
from pilothouse.errors import NotApproved, PolicyDenied, ToolError

OWN_AGENTS = "pilothouse."
"""Agents that Pilothouse brings along tell people of approvals; asking people first would never end."""

MAX_ROUNDS = 5
"""How often edited arguments may need a stricter approval than the one that they were edited in."""

ARGUMENTS_SHOWN = 100


class Declared(NamedTuple):
    """What is known of a tool before it is called. `amount`, `people` and `confidence` name arguments."""

    name: str
    effect: Effect
    platform: str | None = None
    cost_usd: float = 0.0
    risk: int = 0
    amount: str | None = None
    people: str | None = None
    confidence: str | None = None
    billing: Billing = "none"
    data_class: str | None = None
    schema: Mapping[str, Any] | None = None

    @property
    def is_governed(self) -> bool:
        return self.effect.changes_the_world or self.cost_usd > 0 or self.risk > 0 or self.data_class is not None


Arguments = dict[str, Any]


class Call(NamedTuple):
    """A call on its way. `validate` turns edited arguments into those of the function."""

    attempt: Attempt
    asked: StepRequest
    tool: Declared
    called_by: CalledBy
    validate: Callable[[Mapping[str, Any]], Arguments]


async def permit(call: Call, arguments: Arguments) -> Arguments:
    """The arguments that the call may go out with: as they are, or as a reviewer has edited them.

    Code that may not go on is told by PolicyDenied, ApprovalRejected, ApprovalExpired or RevisionRequested; a model by
    ToolError.
    """
    attempt, tool = call.attempt, call.tool
    is_own = attempt.claim.agent.startswith(OWN_AGENTS)
    if attempt.services.around.policies is None or is_own or not tool.is_governed:
        return arguments
    try:
        return await _permitted(call, arguments)
    except (PolicyDenied, NotApproved) as error:
        if call.called_by == "model":
            raise ToolError(str(error)) from error
        raise


async def _permitted(call: Call, arguments: Arguments) -> Arguments:
    journal, before = call.attempt.journal, None
    is_intended = journal.knows(f"{call.asked.key}.intent")
    for number in range(1, MAX_ROUNDS + 1):
        key = f"{call.asked.key}.permission" + (f"-{number}" if number > 1 else "")
        has_asked = journal.knows(key) or journal.knows(f"{key}.asked")
        if is_intended and not has_asked:
            return arguments
        plain = to_jsonable_python(arguments, fallback=str, inf_nan_mode="strings")
        verdict = ALLOWED if is_intended else await _verdict(call, plain)
        if not has_asked and (verdict.decision is Decision.ALLOW or not _asks_more(verdict, before)):
            return arguments
        approved = await _answer(call, key, plain, verdict)
        if not approved.is_edited:
            return arguments
        arguments, before = call.validate(approved.arguments), verdict
    raise PolicyDenied(f"tool {call.tool.name!r}: its arguments were edited {MAX_ROUNDS} times, and still ask for more")


def _asks_more(verdict: Verdict, before: Verdict | None) -> bool:
    """Whether what was approved and edited needs yet another approval: more people than have approved it."""
    return before is None or is_stricter(verdict, before)


async def _verdict(call: Call, plain: Arguments) -> Verdict:
    """Raises PolicyDenied."""
    verdict = await judge(call.attempt, _proposal(call, plain), stated_confidence(call.tool, plain))
    if verdict.decision is Decision.DENY:
        raise PolicyDenied(f"tool {call.tool.name!r} is denied: {verdict.told}")
    return verdict


def _proposal(call: Call, plain: Arguments) -> Proposal:
    claim = call.attempt.claim
    return replace(propose(call.tool, plain, claim.agent), tenant=claim.tenant, called_by=call.called_by)


def propose(tool: Declared, plain: Arguments, agent: str) -> Proposal:
    """What an agent is about to do by a call, as policies see it. Raises ToolError for an amount that is no number."""
    amount = _number(tool, tool.amount, plain)
    return Proposal(
        agent=agent,
        action=tool.name,
        kind="tool",
        effect=tool.effect,
        platform=tool.platform,
        arguments=plain,
        amount_usd=max(abs(amount), tool.cost_usd),
        billing=tool.billing,
        people_affected=int(_number(tool, tool.people, plain)),
        risk=tool.risk,
        data_class=tool.data_class,
        is_reversible=tool.effect is not Effect.IRREVERSIBLE,
    )


def stated_confidence(tool: Declared, plain: Arguments) -> float | None:
    """How sure the caller says it is; None where it does not say. Raises ToolError where that is nothing in 0 to 1."""
    if tool.confidence is None or plain.get(tool.confidence) is None:
        return None
    stated = _number(tool, tool.confidence, plain)
    if not 0 <= stated <= 1:
        raise ToolError(f"tool {tool.name!r}: {tool.confidence} is {stated:g}; a confidence is 0 to 1")
    return stated


def _number(tool: Declared, argument: str | None, plain: Arguments) -> float:
    """The value of an argument that says how much; a list says how many. Raises ToolError where it is no number."""
    value = None if argument is None else plain.get(argument)
    if value is None:
        return 0.0
    if isinstance(value, list | dict):
        return float(len(value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ToolError(f"tool {tool.name!r}: {argument} is {value!r}, which is no number, so no policy can look at it")
    return number


async def _answer(call: Call, key: str, plain: Arguments, verdict: Verdict) -> Approved:
    request = {"tool": call.tool.name, "arguments": plain}
    asked, stored = call.attempt.journal.open_beside(key, APPROVAL_KIND, request)
    if stored is not None:
        return decided(answer_of(stored, None), plain)
    return await ask(call.attempt, asked, _question(call, plain, verdict))


def _question(call: Call, plain: Arguments, verdict: Verdict) -> Question:
    tool, claim, proposal = call.tool, call.attempt.claim, _proposal(call, plain)
    shown = ", ".join(f"{name}={_short(value)}" for name, value in plain.items())
    who = "its model chose" if call.called_by == "model" else "its code calls"
    memo = Memo(
        title=f"{tool.name}({shown})",
        recommendation=f"agent {claim.agent!r} wants to call {tool.name!r}: {who} it in step {call.asked.key!r}",
        reasoning=f"asked because: {verdict.told}",
        risk=proposal.risk,
        confidence=stated_confidence(tool, plain),
        amount_usd=proposal.amount_usd,
        billing=proposal.billing,
        people_affected=proposal.people_affected,
        is_reversible=proposal.is_reversible,
        arguments=plain,
    )
    return Question(memo, "tool", tool.name, verdict, schema=tool.schema)


def _short(value: object) -> str:
    text = payloads.encode(value)
    return text if len(text) <= ARGUMENTS_SHOWN else text[: ARGUMENTS_SHOWN - 1] + "…"
