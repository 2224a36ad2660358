"""Approvals: what a person is shown, whether that is enough to decide on, and what each decision makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, assert_never

from pilothouse.domain.keys import KeyRole, includes
from pilothouse.domain.policies import TIER_NAMES, Billing, Reviewer

Choice = Literal["approve", "reject", "revise"]
"""What a reviewer may say. To delegate is no decision: somebody else is asked."""

MAX_ARGUMENTS = 65_536
"""Characters of arguments beyond which nobody reads what they approve."""

MAX_TEXT = 20_000


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Memo:
    """What a person decides on. `arguments` are exactly what will be done; `amount_usd` is the estimated cost."""

    title: str
    recommendation: str = ""
    reasoning: str = ""
    risk_assessment: str = ""
    risk: int = 2
    confidence: float | None = None
    amount_usd: float = 0.0
    billing: Billing = "none"
    people_affected: int = 0
    is_reversible: bool = True
    alternatives: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = field(default_factory=dict)


def missing_of(memo: Memo) -> list[str]:
    """What a memo lacks before a person may be asked to decide on it; empty where it is complete.

    The more is at stake the more must be said: from tier 2 a recommendation, from tier 3 the reasoning and the exact
    arguments too.
    """
    missing = [f"{name} is out of bounds: {told}" for name, told in _out_of_bounds(memo)]
    if not memo.title.strip():
        missing.append("title: what is to be decided, in one line")
    if memo.risk >= 2 and not memo.recommendation.strip():
        missing.append("recommendation: what the agent would do, for a risk of tier 2 and more")
    if memo.risk >= 3 and not memo.reasoning.strip():
        missing.append("reasoning: why, for a risk of tier 3 and more")
    if memo.risk >= 3 and memo.arguments is None:
        missing.append("arguments: exactly what will be done, for a risk of tier 3 and more")
    return missing


def _out_of_bounds(memo: Memo) -> list[tuple[str, str]]:
    found = []
    if not 0 <= memo.risk <= 4:
        found.append(("risk", f"{memo.risk}, a tier is 0 to 4"))
    if memo.confidence is not None and not 0 <= memo.confidence <= 1:
        found.append(("confidence", f"{memo.confidence}, it is 0 to 1"))
    if not math.isfinite(memo.amount_usd) or memo.amount_usd < 0:
        found.append(("amount_usd", f"{memo.amount_usd}, it is 0 or more"))
    if memo.people_affected < 0:
        found.append(("people_affected", f"{memo.people_affected}, it is 0 or more"))
    if memo.billing not in ("none", "one_time", "recurring"):
        found.append(("billing", f"{memo.billing!r}, it is none, one_time or recurring"))
    for name in ("title", "recommendation", "reasoning", "risk_assessment"):
        if len(getattr(memo, name)) > MAX_TEXT:
            found.append((name, f"more than {MAX_TEXT:,} characters"))
    return found


def assess(memo: Memo) -> str:
    """The risk in words, from what was declared; for a memo that does not say it in its own."""
    parts = [
        f"tier {memo.risk} ({TIER_NAMES[memo.risk]})",
        "can be undone" if memo.is_reversible else "cannot be undone",
    ]
    if memo.amount_usd:
        parts.append(f"{memo.amount_usd:,.2f} USD")
    if memo.billing == "recurring":
        parts.append("charged again and again")
    if memo.people_affected:
        parts.append(f"{memo.people_affected:,} people affected")
    return ", ".join(parts)


def schema_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema that edits are held against where nobody has declared one: the same keys, the same types."""
    return {
        "type": "object",
        "properties": {name: _type_of(value) for name, value in arguments.items()},
        "required": sorted(arguments),
        "additionalProperties": False,
    }


def _type_of(value: object) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list() | tuple():
            return {"type": "array"}
        case dict():
            return {"type": "object"}
        case _:
            return {}


# --- deciding ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides. `key_id` is the API key that proves it; None for who acts on this machine or by a signed link."""

    principal: str
    role: KeyRole = KeyRole.ADMIN
    tenant: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's yes to exact arguments."""

    principal: str
    arguments_hash: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a decision is held against. `are_people_known`: there are API keys, so that people can be told apart."""

    requested_by: str
    run_id: str
    quorum: int
    reviewer: Reviewer
    assigned_to: str | None
    votes: Sequence[Vote] = ()
    are_people_known: bool = True


MACHINES = ("run:", "worker:", "system:", "app:")
CHANNELS = ("email:", "telegram:", "webhook:")
"""Who decides by a signed link: whoever reads the channel, and one person may read several."""

LOCAL_API = "api:local"


def refusal(asked: Asked, by: Decider) -> str | None:
    """Why this person may not decide; None where they may."""
    if by.principal.startswith(MACHINES):
        return f"{by.principal} is no person; a person decides"
    if not includes(by.role, KeyRole.OPERATOR):
        return f"{by.principal} has a {by.role}'s key; deciding needs an operator's"
    if asked.reviewer == "admin" and by.role is not KeyRole.ADMIN:
        return f"it needs a senior reviewer: somebody with an admin's key; {by.principal} has an {by.role}'s"
    if asked.quorum > 1 and by.principal.startswith(CHANNELS):
        return f"it needs {asked.quorum} different people, and a link tells nobody apart; decide it with your own key"
    if asked.assigned_to is not None and not _is_same(asked.assigned_to, by.principal) and by.role is not KeyRole.ADMIN:
        return f"it was given to {asked.assigned_to} to decide"
    if _is_own(asked, by):
        return f"{by.principal} has asked for it, and nobody approves what they asked for; another person decides"
    return None


def _is_own(asked: Asked, by: Decider) -> bool:
    """On a machine without API keys nobody can be told from anybody; there only the quorum counts people."""
    if not asked.are_people_known and _is_local(by.principal):
        return False
    return _is_same(asked.requested_by, by.principal) or by.principal == f"run:{asked.run_id}"


def _is_local(principal: str) -> bool:
    return principal == LOCAL_API or principal.startswith("cli:")


def _is_same(one: str, other: str) -> bool:
    """Whether two principals may be one person: who asks without a key may be anybody on this machine."""
    if LOCAL_API in (one, other):
        return _is_local(one) and _is_local(other)
    return one == other


def counts(asked: Asked, by: Decider, arguments_hash: str) -> int:
    """How many different people have said yes to these arguments, with this one."""
    others = [
        vote.principal
        for vote in asked.votes
        if vote.arguments_hash == arguments_hash and not _is_same(vote.principal, by.principal)
    ]
    return len(set(others)) + 1


def next_state(choice: Choice, yeses: int, quorum: int) -> ApprovalState:
    """Where a decision leads. One no is enough; a yes counts once enough people have said it."""
    match choice:
        case "approve":
            return ApprovalState.APPROVED if yeses >= quorum else ApprovalState.PENDING
        case "reject":
            return ApprovalState.REJECTED
        case "revise":
            return ApprovalState.RETURNED
        case _:
            assert_never(choice)
