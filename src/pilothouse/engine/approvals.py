"""Approvals inside a run: it asks, is suspended until people have decided, and goes on with what they have decided.

What is asked is a step of its own, written in one transaction with the approval; the answer is another. So a run that
is killed at any point asks once, and is answered once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from pydantic_core import to_jsonable_python

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control.asking import WAIT_KIND, Ask
from pilothouse.control.waits import Wait
from pilothouse.domain.approvals import MAX_ARGUMENTS, Memo, assess, missing_of, schema_of
from pilothouse.domain.policies import (
    ON_DEADLINE,
    Billing,
    Decision,
    Facts,
    OnDeadline,
    Proposal,
    Rulebook,
    Verdict,
    join,
)
from pilothouse.engine.attempt import ASKED_KIND, Attempt
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.patience import patiently
from pilothouse.engine.steps import answer_of, make_checkpoint, store
from pilothouse.errors import (
    ApprovalExpired,
    ApprovalIncomplete,
    ApprovalRejected,
    NotApproved,
    PolicyDenied,
    RevisionRequested,
)
from pilothouse.store.database import Row
from pilothouse.telemetry.events import ApprovalAnswered

APPROVAL_KIND = "approval"
HOUR_US = 3_600_000_000

REFUSALS: Mapping[str, type[NotApproved]] = {
    "rejected": ApprovalRejected,
    "expired": ApprovalExpired,
    "returned": RevisionRequested,
}


@dataclass(frozen=True, slots=True)
class Approved:
    """A yes. `arguments` are those to go on with: as they were asked for, or as the reviewer has edited them.

    `approval_id` and `decided_by` are empty where no policy wanted a person to be asked.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    decided_by: str | None = None
    note: str = ""
    approval_id: str | None = None
    is_edited: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What people are asked: the memo, for what, and how the answer comes about.

    `schema` is what edited arguments are held against, None for the types that they have now.
    """

    memo: Memo
    kind: Literal["approval", "tool"]
    action: str
    verdict: Verdict
    round: int = 1
    schema: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.memo.arguments or {})


class ApprovalArguments(TypedDict, total=False):
    """What `Context.approve` takes beside a name; see there."""

    amount_usd: float
    recommendation: str
    reasoning: str
    risk: int
    confidence: float | None
    people_affected: int
    billing: Billing
    reversible: bool
    alternatives: Sequence[str]
    arguments: Mapping[str, Any] | None
    title: str | None
    risk_assessment: str
    data_class: str | None
    deadline_hours: float | None
    on_deadline: OnDeadline


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalOptions:
    """The same with what is not said filled in."""

    amount_usd: float = 0.0
    recommendation: str = ""
    reasoning: str = ""
    risk: int = 2
    confidence: float | None = None
    people_affected: int = 0
    billing: Billing = "none"
    reversible: bool = True
    alternatives: Sequence[str] = ()
    arguments: Mapping[str, Any] | None = None
    title: str | None = None
    risk_assessment: str = ""
    data_class: str | None = None
    deadline_hours: float | None = None
    on_deadline: OnDeadline = "wait"


async def approve(attempt: Attempt, name: str, given: ApprovalArguments) -> Approved:
    """See `Context.approve`."""
    options = ApprovalOptions(**given)
    memo = _memo(name, options)
    missing = missing_of(memo) + _deadline_problems(options)
    if missing:
        raise ApprovalIncomplete(f"approval {name!r} is not complete, so nobody was asked: {'; '.join(missing)}")
    await attempt.refuse_if_stopped()
    key = attempt.unique(name)
    round = attempt.uses(name)
    asked, stored = attempt.journal.open(key, APPROVAL_KIND, _binding(name, memo))
    if stored is not None:
        return decided(answer_of(stored, None), dict(memo.arguments or {}))
    verdict = await _judged(attempt, name, memo, options)
    if verdict.decision is Decision.ALLOW:
        answer = {"state": "approved", "note": verdict.told, "version": verdict.version}
        await store(attempt, asked, payloads.encode(answer))
        return decided(answer, dict(memo.arguments or {}))
    return await ask(attempt, asked, Question(memo, "approval", name, verdict, round=round))


def _binding(name: str, memo: Memo) -> dict[str, Any]:
    """What an approval is bound to: what is done, not the words about it, which may be others in a later attempt."""
    return {
        "action": name,
        "arguments": memo.arguments,
        "amount_usd": memo.amount_usd,
        "billing": memo.billing,
        "people_affected": memo.people_affected,
        "risk": memo.risk,
    }


def _memo(name: str, options: ApprovalOptions) -> Memo:
    """Arguments that are not given are the amount, so that a reviewer can at least edit that."""
    arguments = options.arguments
    if arguments is None and options.risk < 3:
        arguments = {"amount_usd": options.amount_usd} if options.amount_usd else {}
    return Memo(
        title=name if options.title is None else options.title,
        recommendation=options.recommendation,
        reasoning=options.reasoning,
        risk_assessment=options.risk_assessment,
        risk=options.risk,
        confidence=options.confidence,
        amount_usd=options.amount_usd,
        billing=options.billing,
        people_affected=options.people_affected,
        is_reversible=options.reversible,
        alternatives=tuple(options.alternatives),
        arguments=None if arguments is None else to_jsonable_python(dict(arguments)),
    )


def _deadline_problems(options: ApprovalOptions) -> list[str]:
    found = []
    if options.on_deadline not in ON_DEADLINE:
        found.append(f"on_deadline: {options.on_deadline!r}, it is {', '.join(ON_DEADLINE)}")
    if options.deadline_hours is not None and options.deadline_hours <= 0:
        found.append(f"deadline_hours: {options.deadline_hours}, it is more than 0")
    return found


async def _judged(attempt: Attempt, name: str, memo: Memo, options: ApprovalOptions) -> Verdict:
    """What the policies say, and the deadline that the agent has set. Raises PolicyDenied."""
    proposal = Proposal(
        agent=attempt.claim.agent,
        action=name,
        kind="approval",
        arguments=dict(memo.arguments or {}),
        amount_usd=memo.amount_usd,
        billing=memo.billing,
        people_affected=memo.people_affected,
        risk=memo.risk,
        data_class=options.data_class,
        is_reversible=memo.is_reversible,
        tenant=attempt.claim.tenant,
    )
    own = Verdict(Decision.ALLOW, deadline_hours=options.deadline_hours, on_deadline=options.on_deadline)
    verdict = join(own, await judge(attempt, proposal, memo.confidence))
    if verdict.decision is Decision.DENY:
        raise PolicyDenied(f"{name!r} is denied: {verdict.told}")
    return verdict


async def judge(attempt: Attempt, proposal: Proposal, confidence: float | None) -> Verdict:
    """The verdict of the policies; where there are none, only what asks by itself is asked."""
    policies = attempt.services.around.policies
    if policies is None:
        return Rulebook().verdict(proposal, Facts(confidence=confidence))
    return await patiently(lambda: policies.verdict(proposal, confidence, attempt.claim.run_id))


# --- asking ------------------------------------------------------------------------------------


async def ask(attempt: Attempt, asked: StepRequest, question: Question) -> Approved:
    """Suspends the run until people have decided; what they have decided is the answer of the step `asked`.

    Where an earlier answer was withdrawn, because the run had ended then, people are asked anew.
    Raises ApprovalRejected, ApprovalExpired, RevisionRequested.
    """
    arguments = payloads.encode(question.arguments)
    if len(arguments) > MAX_ARGUMENTS:
        raise ApprovalIncomplete(
            f"the arguments of {question.action!r} have {len(arguments):,} characters; nobody reads more than "
            f"{MAX_ARGUMENTS:,} before they approve them"
        )
    number, row = 1, None
    while row is None or row["state"] == "withdrawn":
        row = await _look(attempt, asked, question, arguments, number)
        number += 1
    _tell_answered(attempt, asked, question, row)
    is_edited = row["decided_arguments"] is not None and row["state"] == "approved"
    answer = {
        "id": row["id"],
        "state": row["state"],
        "by": row["decided_by"],
        "note": row["note"] or "",
        "arguments": payloads.decode(row["decided_arguments"]) if is_edited else None,
    }
    await store(attempt, asked, payloads.encode(answer))
    return decided(answer, question.arguments)


def _tell_answered(attempt: Attempt, asked: StepRequest, question: Question, row: Row) -> None:
    claim, by = attempt.claim, row["decided_by"]
    asked_at, decided_at = row["requested_at"], row["decided_at"] or attempt.now_us()
    attempt.services.emitter.emit(
        ApprovalAnswered(
            claim.run_id, claim.agent, asked.key, question.action, row["id"], row["state"], asked_at, decided_at, by
        )
    )


async def _look(attempt: Attempt, asked: StepRequest, question: Question, arguments: str, number: int) -> Row:
    """The decided or withdrawn approval of the `number`th asking; while it is pending the run is suspended."""
    key = f"{asked.key}.asked" + (f"-{number}" if number > 1 else "")
    step, stored = attempt.journal.open_beside(key, ASKED_KIND, {"action": question.action, "arguments": arguments})
    if stored is None:
        approval_id = new_id()
        attempt.has_asked = True
        wanted = _ask(attempt, asked, question, approval_id, payloads.digest(arguments))
        with attempt.busy():
            now, text = attempt.now_us(), payloads.encode(approval_id)
            checkpoint = make_checkpoint(attempt, step, result=text, started_at=now, tries=1)
            wanted = wanted._replace(round=question.round)
            await attempt.services.writer.checkpoint(checkpoint._replace(asks=(wanted,)))
    else:
        approval_id = str(answer_of(stored, None))
        row = await attempt.services.reader.approval(attempt.claim.run_id, approval_id)
        if row is None:
            raise PolicyDenied(f"approval {approval_id}, which step {asked.key!r} waits for, is not there any more")
        if row["state"] != "pending":
            return row
    reason = f"it waits for approval {approval_id} of {question.action!r}: {question.verdict.told}"
    return await attempt.park((Wait(WAIT_KIND, approval_id, asked.key),), None, reason)


def _ask(attempt: Attempt, asked: StepRequest, question: Question, approval_id: str, hash: str) -> Ask:
    memo, verdict, hidden = question.memo, question.verdict, attempt.redact
    schema = schema_of(question.arguments) if question.schema is None else question.schema
    hours = verdict.deadline_hours
    return Ask(
        id=approval_id,
        key=asked.key,
        round=1,
        kind=question.kind,
        action=question.action,
        title=hidden(memo.title),
        recommendation=hidden(memo.recommendation),
        reasoning=hidden(memo.reasoning),
        risk_assessment=hidden(memo.risk_assessment or assess(memo)),
        risk=memo.risk,
        confidence=memo.confidence,
        cost_microusd=round(memo.amount_usd * 1_000_000),
        billing=memo.billing,
        people_affected=memo.people_affected,
        is_reversible=int(memo.is_reversible),
        alternatives=hidden(payloads.encode(list(memo.alternatives))),
        arguments=hidden(payloads.encode(question.arguments)),
        arguments_hash=hash,
        arguments_schema=payloads.encode(dict(schema)),
        reasons=payloads.encode([each._asdict() for each in verdict.reasons]),
        quorum=verdict.quorum,
        reviewer=verdict.reviewer,
        policy_version=verdict.version or None,
        on_deadline=verdict.on_deadline,
        deadline_us=None if hours is None else int(hours * HOUR_US),
        channels=attempt.services.around.channels,
    )


def decided(answer: Mapping[str, Any], arguments: dict[str, Any]) -> Approved:
    """What a kept answer is to the code that asked. Raises ApprovalRejected, ApprovalExpired, RevisionRequested."""
    refused = REFUSALS.get(answer["state"])
    if refused is None:
        edited = answer.get("arguments")
        return Approved(
            arguments if edited is None else edited,
            answer.get("by"),
            answer.get("note", ""),
            answer.get("id"),
            is_edited=edited is not None,
        )
    by, note, id = answer["by"], answer["note"], answer["id"]
    told = {
        "rejected": f"approval {id} was rejected by {by}: {note}",
        "expired": f"approval {id} expired: nobody decided before its deadline",
        "returned": f"approval {id} was sent back by {by} for revision: {note}",
    }[answer["state"]]
    raise refused(told, approval_id=id, note=note, decided_by=by)
