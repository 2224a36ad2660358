"""What a worker and an isolated process say to each other: frames of JSON, each after its length in four bytes.

The process holds code that is not trusted: it says what happened to its attempt, and the worker says whose it is.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from typing import Any

import orjson

from pilothouse.control.asking import Ask
from pilothouse.control.attempts import Checkpoint, ClaimedRun
from pilothouse.control.bookings import NO_BOOKING, Booking, model_charges
from pilothouse.control.calls import NO_CALLS, ModelCall, StepCalls, ToolCall
from pilothouse.control.effects import EffectEnd, Intent
from pilothouse.control.ledger import Charge, Hold
from pilothouse.control.runs import Request
from pilothouse.control.waits import Wait
from pilothouse.domain.lanes import Lane
from pilothouse.domain.limits import Amounts, Payer
from pilothouse.domain.policies import Decision, Proposal, Reason, Verdict
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import (
    ApprovalAnswered,
    EffectFailed,
    RunawaySuspected,
    StepExecuted,
    StepFailed,
    ToolCalled,
    ToolPutOff,
)

Frame = dict[str, Any]

MAX_FRAME = 256 * 1024 * 1024
"""Bytes; far above any payload that a run may have."""

_LENGTH = struct.Struct("!I")
_CHILD_FIELDS = ("id", "agent", "input", "lane", "priority", "available_at")
TOLD = {
    kind.name: kind
    for kind in (ApprovalAnswered, EffectFailed, RunawaySuspected, StepExecuted, StepFailed, ToolCalled, ToolPutOff)
}
"""The events that a process tells; what the worker sees by itself, it tells by itself."""

_WHOSE = ("run_id", "attempt", "agent")
_PROPOSED = tuple(name for name in Proposal.__dataclass_fields__ if name not in ("agent", "tenant", "user_id"))
_OWN_FIELDS = ("run_id", "attempt", "children", "calls", "memories", "booking", "asks")


class BrokenFrame(Exception):
    """What came is no frame."""


def send(writer: asyncio.StreamWriter, kind: str, **fields: Any) -> None:
    text = orjson.dumps({"kind": kind, **fields})
    writer.write(_LENGTH.pack(len(text)) + text)


async def receive(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end. Raises BrokenFrame."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise BrokenFrame(f"a frame of {length} bytes")
        frame = orjson.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except ValueError as error:
        raise BrokenFrame(str(error)) from error
    if not isinstance(frame, dict) or not isinstance(frame.get("kind"), str):
        raise BrokenFrame("a frame without a kind")
    return frame


def claim_from(fields: Sequence[Any]) -> ClaimedRun:
    claim = ClaimedRun(*fields)
    return claim._replace(lane=Lane(claim.lane))


def checkpoint_fields(checkpoint: Checkpoint) -> Frame:
    own = {name: value for name, value in checkpoint._asdict().items() if name not in _OWN_FIELDS}
    children = [{name: getattr(child, name) for name in _CHILD_FIELDS} for child in checkpoint.children]
    tools = [tuple(call) for call in checkpoint.calls.tools]
    booking = booking_fields(checkpoint.booking)
    return {
        "checkpoint": own,
        "children": children,
        "tools": tools,
        "memories": checkpoint.memories,
        "booking": booking,
        "asks": [ask._asdict() for ask in checkpoint.asks],
    }


def checkpoint_from(
    frame: Frame, claim: ClaimedRun, models: tuple[ModelCall, ...], channels: tuple[str, ...]
) -> Checkpoint:
    """Whatever the process says, it speaks for its own attempt, and its children are the run's.

    What it asked `models`, and which `channels` tell people of what it asks them, the worker knows by itself.
    """
    tools = tuple(ToolCall(*fields) for fields in frame["tools"])
    return Checkpoint(
        run_id=claim.run_id,
        attempt=claim.attempt,
        children=tuple(_child_from(fields, claim) for fields in frame["children"]),
        calls=StepCalls(models, tools) if models or tools else NO_CALLS,
        memories=tuple((str(name), str(value)) for name, value in frame["memories"]),
        booking=_booking_from(frame["booking"], claim, models),
        asks=tuple(Ask(**{**fields, "channels": channels}) for fields in frame["asks"]),
        **frame["checkpoint"],
    )


def booking_fields(booking: Booking) -> Frame | None:
    if booking is NO_BOOKING:
        return None
    hold = booking.hold and (*booking.hold[:3], tuple(booking.hold.payer[4:]), tuple(booking.hold.amounts))
    charges = [(charge.reservation_id, tuple(charge.amounts), charge.reason) for charge in booking.charges]
    intent = booking.intent and tuple(booking.intent)
    return {"hold": hold, "intent": intent, "charges": charges, "ends": [tuple(end) for end in booking.ends]}


def _booking_from(fields: Frame | None, claim: ClaimedRun, models: tuple[ModelCall, ...]) -> Booking:
    """What the process spends is its run's; what it asked models is charged as the worker knows it."""
    charges = model_charges(models)
    if fields is None:
        return Booking(charges=charges) if charges else NO_BOOKING
    hold, intent = fields["hold"], fields["intent"]
    return Booking(
        None if hold is None else _hold_from(hold, claim),
        None if intent is None else _intent_from(intent, claim),
        (*charges, *(Charge(id, Amounts(*amounts), reason) for id, amounts, reason in fields["charges"])),
        tuple(_end_from(end, claim) for end in fields["ends"]),
    )


def _intent_from(fields: Sequence[Any], claim: ClaimedRun) -> Intent:
    return Intent(*fields)._replace(run_id=claim.run_id, attempt=claim.attempt, tenant=claim.tenant, agent=claim.agent)


def _end_from(fields: Sequence[Any], claim: ClaimedRun) -> EffectEnd:
    return EffectEnd(*fields)._replace(run_id=claim.run_id, attempt=claim.attempt, tenant=claim.tenant)


def _hold_from(fields: Sequence[Any], claim: ClaimedRun) -> Hold:
    id, key, _, (platform, tool), amounts = fields
    payer = Payer(claim.run_id, claim.tenant, claim.agent, claim.user_id, platform, tool)
    return Hold(id, key, claim.attempt, payer, Amounts(*amounts))


def _child_from(fields: Mapping[str, Any], claim: ClaimedRun) -> Request:
    return Request(
        **{name: fields[name] for name in _CHILD_FIELDS},
        principal=f"run:{claim.run_id}",
        tenant=claim.tenant,
        user_id=claim.user_id,
        parent_id=claim.run_id,
        root_id=claim.root_id,
        traceparent=claim.traceparent,
    )


def event_fields(event: Event) -> Frame:
    return {each.name: getattr(event, each.name) for each in fields_of(event) if each.name not in _WHOSE}


def event_from(frame: Frame, claim: ClaimedRun) -> Event:
    """Whatever the process says, it tells of its own run. Raises KeyError, TypeError for what is no event."""
    kind = TOLD[frame["name"]]
    whose = {each.name: getattr(claim, each.name) for each in fields_of(kind) if each.name in _WHOSE}
    return kind(**frame["fields"], **whose)


def proposal_fields(proposal: Proposal) -> Frame:
    return {name: getattr(proposal, name) for name in _PROPOSED}


def proposal_from(fields: Mapping[str, Any], claim: ClaimedRun) -> Proposal:
    """What the process is about to do; whose run it is, the worker knows by itself."""
    own = {name: fields[name] for name in _PROPOSED}
    return Proposal(agent=claim.agent, tenant=claim.tenant, **own)


def verdict_fields(verdict: Verdict) -> Frame:
    own = {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__}
    return own | {"reasons": [tuple(reason) for reason in verdict.reasons]}


def verdict_from(fields: Mapping[str, Any]) -> Verdict:
    reasons = tuple(Reason(rule, Decision(decision), text) for rule, decision, text in fields["reasons"])
    return Verdict(**{**fields, "decision": Decision(fields["decision"]), "reasons": reasons})


def waits_from(rows: Sequence[Sequence[Any]]) -> tuple[Wait, ...]:
    return tuple(Wait(*row) for row in rows)
