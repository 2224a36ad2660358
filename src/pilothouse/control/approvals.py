"""Approvals: look at what waits for a person, decide it, or hand it on.

A decision and the wake-up of its run are one transaction; the second of two decisions is told the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jsonschema_rs

from pilothouse import payloads
from pilothouse.clock import isoformat
from pilothouse.control import asking, audit, autonomy, runs, waits
from pilothouse.control.asking import WAIT_KIND
from pilothouse.control.views import view
from pilothouse.domain.approvals import (
    MAX_ARGUMENTS,
    ApprovalState,
    Asked,
    Choice,
    Decider,
    Vote,
    counts,
    next_state,
    refusal,
)
from pilothouse.domain.keys import KeyRole
from pilothouse.domain.notices import KINDS, recipient_of
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import Conflict, FieldError, Forbidden, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

SIMILAR_SHOWN = 5
MAX_NOTE = 4_000
NEVER = 10**18 - 1
"""An instant later than all deadlines: the same as in `list_pending_approvals`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which approvals to list; None: any."""

    state: str | None = None
    agent: str | None = None
    action: str | None = None
    tenant: str | None = None
    run_id: str | None = None
    assigned_to: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A decision. `arguments` are those that the reviewer has edited (None: as they are); `seen_hash` is of those that
    the reviewer has seen (None: whatever they are).
    """

    choice: Choice
    note: str = ""
    arguments: Mapping[str, Any] | None = None
    seen_hash: str | None = None


async def list_approvals(db: Database, wanted: Filter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """Newest first; `after` is the last id of the page before."""
    return await db.read(
        lambda tx: tx.fetch_all(
            "list_approvals",
            after=after,
            limit=limit,
            state=wanted.state,
            agent=wanted.agent,
            action=wanted.action,
            tenant=wanted.tenant,
            run_id=wanted.run_id,
            assigned_to=wanted.assigned_to,
        )
    )


async def list_pending(db: Database, wanted: Filter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """What waits for a person, the nearest deadline first; `after` is `urgency_of` the last row of the page before.

    Raises InvalidInput for an `after` that is none.
    """
    at, _, id = (after or "").partition(".")
    if after is not None and not (at.isascii() and at.isdecimal() and len(at) < 19 and id):
        raise InvalidInput(f"after is the link of the page before, not {after!r}", [FieldError("after", "no place")])
    place = {"at": None if after is None else int(at), "id": None if after is None else id}
    return await db.read(
        lambda tx: tx.fetch_all(
            "list_pending_approvals", **place, limit=limit, agent=wanted.agent, tenant=wanted.tenant
        )
    )


def urgency_of(row: Row) -> str:
    """Where a row stands among those that wait."""
    return f"{NEVER if row['deadline_at'] is None else row['deadline_at']}.{row['id']}"


async def show_approval(db: Database, approval_id: str, *, tenant: str | None = None) -> dict[str, Any]:
    """One approval with its votes and what people decided on the same action before. Raises NotFound."""
    return await db.read(lambda tx: _show(tx, approval_id, tenant))


def _show(tx: Transaction, approval_id: str, tenant: str | None) -> dict[str, Any]:
    row = _find(tx, approval_id, tenant)
    similar = tx.fetch_all(
        "similar_approvals",
        agent=row["agent"],
        action=row["action"],
        tenant=row["tenant"],
        id=approval_id,
        limit=SIMILAR_SHOWN,
    )
    votes = tx.fetch_all("votes_of_approval", id=approval_id)
    return public(row) | {"votes": [view(vote) for vote in votes], "similar": [_similar(each) for each in similar]}


def _similar(row: Row) -> dict[str, Any]:
    told = {name: value for name, value in view(row).items() if name != "decided_arguments"}
    is_edited = row["decided_arguments"] is not None
    arguments = payloads.decode(row["decided_arguments"]) if is_edited else told["arguments"]
    return told | {"arguments": arguments, "is_edited": is_edited, "cost_usd": row["cost_microusd"] / 1_000_000}


def public(row: Row) -> dict[str, Any]:
    """An approval as users see it."""
    shown = view({name: value for name, value in row.items() if name not in _JSON and name != "now"})
    decoded = {name: None if row[name] is None else payloads.decode(row[name]) for name in _JSON}
    return shown | decoded | {"cost_usd": row["cost_microusd"] / 1_000_000, "is_reversible": bool(row["is_reversible"])}


_JSON = ("alternatives", "arguments", "arguments_schema", "reasons", "decided_arguments")


def _find(tx: Transaction, approval_id: str, tenant: str | None) -> Row:
    """What belongs to another tenant is not there."""
    row = tx.fetch_one("approval_by_id", id=approval_id)
    if row is None or tenant not in (None, row["tenant"]):
        raise NotFound(f"there is no approval {approval_id}; `pilothouse approvals list` shows what waits for a person")
    return row


# --- deciding ----------------------------------------------------------------------------------


async def decide(db: Database, approval_id: str, said: Said, by: Decider) -> dict[str, Any]:
    """Decides; the approval as it is then, still pending where more people must say yes.

    Saying the same again changes nothing. Raises NotFound, Forbidden, InvalidInput for edited arguments that do not
    fit, Conflict where somebody has decided otherwise or the arguments are not those that were seen.
    """
    _check_said(said)
    row = await db.transaction(lambda tx: _decide(tx, approval_id, said, by))
    db.notify(runs.WAKE_RUNS)
    return public(row)


def _check_said(said: Said) -> None:
    if len(said.note) > MAX_NOTE or "\0" in said.note:
        raise InvalidInput(
            f"note: at most {MAX_NOTE} characters, without NUL", [FieldError("note", "too long, or holds NUL")]
        )
    if said.choice != "approve" and said.arguments is not None:
        raise InvalidInput("arguments: only who approves may edit them", [FieldError("arguments", "only for approve")])
    if said.choice != "approve" and not said.note.strip():
        told = f"say why: the agent is told the reason of a {said.choice}"
        raise InvalidInput(f"note: {told}", [FieldError("note", told)])


def _decide(tx: Transaction, approval_id: str, said: Said, by: Decider) -> Row:
    row = _lock(tx, approval_id, by)
    votes = tx.fetch_all("votes_of_approval", id=approval_id)
    if row["state"] != ApprovalState.PENDING:
        return _answer_again(row, votes, said, by)
    asked = _asked(tx, row, votes)
    _refuse(tx, row, asked, by)
    current = row["decided_hash"] or row["arguments_hash"]
    if said.seen_hash not in (None, current):
        raise Conflict(f"the arguments of approval {approval_id} were edited meanwhile; look at them again")
    change = _change(row, said, counts_of=lambda hash: counts(asked, by, hash), current=current)
    if said.choice == "approve" and any(
        vote.principal == by.principal and vote.arguments_hash == change.hash for vote in asked.votes
    ):
        return row
    _write(tx, row, said, by, change)
    return _find(tx, approval_id, by.tenant)


class _Change(NamedTuple):
    """What a decision makes of an approval: its state, and the arguments that are decided on where they were edited."""

    state: ApprovalState
    edited: str | None
    hash: str


def _change(row: Row, said: Said, *, counts_of: Callable[[str], int], current: str) -> _Change:
    edited = _edited(row, said)
    hash = current if edited is None else payloads.digest(edited)
    return _Change(next_state(said.choice, counts_of(hash), row["quorum"]), edited, hash)


def _lock(tx: Transaction, approval_id: str, by: Decider) -> Row:
    """The run first, as everybody who changes both does."""
    found = _find(tx, approval_id, by.tenant)
    tx.fetch_one("lock_run", id=found["run_id"])
    row = tx.fetch_one("lock_approval", id=approval_id)
    assert row is not None
    return row


def _asked(tx: Transaction, row: Row, votes: list[Row]) -> Asked:
    return Asked(
        requested_by=row["requested_by"],
        run_id=row["run_id"],
        quorum=row["quorum"],
        reviewer=row["reviewer"],
        assigned_to=row["assigned_to"],
        votes=[Vote(vote["principal"], vote["arguments_hash"] or "") for vote in votes],
        are_people_known=tx.fetch_one("active_key") is not None,
    )


def _refuse(tx: Transaction, row: Row, asked: Asked, by: Decider) -> None:
    if by.key_id is not None:
        by = _still_holding(tx, by)
    why = refusal(asked, by)
    if why is not None:
        raise Forbidden(f"approval {row['id']}: {why}")
    run = tx.fetch_one("run_by_id", id=row["run_id"])
    if run is None or run["state"] in TERMINAL:
        raise Conflict(f"approval {row['id']}: its run {row['run_id']} has ended; there is nothing to decide any more")
    if row["on_deadline"] == "expire" and row["deadline_at"] is not None and row["deadline_at"] <= row["now"]:
        raise Conflict(f"approval {row['id']} expired at {isoformat(row['deadline_at'])}, before anybody decided")


def _still_holding(tx: Transaction, by: Decider) -> Decider:
    """A key is looked at again in the transaction of its decision: it may have been revoked since the request came."""
    key = tx.fetch_one("hold_key", id=by.key_id)
    is_good = (
        key is not None and key["revoked_at"] is None and (key["expires_at"] is None or key["expires_at"] > key["now"])
    )
    if key is None or not is_good:
        raise Forbidden(f"the key of {by.principal} was revoked or has expired; nothing was decided")
    return Decider(by.principal, KeyRole(key["role"]), key["tenant"], by.key_id)


def _edited(row: Row, said: Said) -> str | None:
    """The arguments as the reviewer wants them, held against their schema; None where they stay as they are."""
    if said.arguments is None:
        return None
    text = payloads.encode(dict(said.arguments))
    if len(text) > MAX_ARGUMENTS:
        raise InvalidInput(f"arguments: at most {MAX_ARGUMENTS:,} characters", [FieldError("arguments", "too long")])
    problems = _problems(row["arguments_schema"], said.arguments)
    if problems:
        told = "; ".join(f"{each.field}: {each.message}" for each in problems[:5])
        raise InvalidInput(f"the edited arguments do not fit {row['action']!r}: {told}", problems)
    return text


def _problems(schema: str | None, arguments: Mapping[str, Any]) -> list[FieldError]:
    if schema is None:
        return []
    found = []
    for error in _validator(schema).iter_errors(dict(arguments)):
        place = ".".join(str(part) for part in error.instance_path)
        found.append(FieldError(f"arguments.{place}" if place else "arguments", str(error.message)))
    return found


@lru_cache(maxsize=128)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(payloads.decode(schema))


def _write(tx: Transaction, row: Row, said: Said, by: Decider, change: _Change) -> None:
    state, edited, hash = change
    note = said.note.strip() or None
    tx.execute(
        "put_vote",
        approval_id=row["id"],
        principal=by.principal,
        decision=said.choice,
        note=note,
        arguments_hash=hash if said.choice == "approve" else None,
    )
    changed = tx.fetch_one(
        "decide_approval",
        id=row["id"],
        state=state,
        decision=None if state == ApprovalState.PENDING else said.choice,
        note=None if state == ApprovalState.PENDING else note,
        decided_by=by.principal,
        decided_arguments=edited or row["decided_arguments"],
        decided_hash=hash if edited or row["decided_hash"] else None,
    )
    assert changed is not None, "the approval is locked and was pending"
    if state != ApprovalState.PENDING:
        waits.release(tx, [{"run_id": row["run_id"], "kind": WAIT_KIND, "name": row["id"]}])
        autonomy.review(tx, row["agent"], row["fingerprint"], row["action"])
    action = "approval.voted" if state == ApprovalState.PENDING else f"approval.{state}"
    _record(tx, row, action, by, after=state, reason=_told(said, note, edited))


def _told(said: Said, note: str | None, edited: str | None) -> str | None:
    parts = [said.choice, f"with edited arguments {edited}" if edited else None, note]
    return ": ".join(part for part in parts if part)


def _record(tx: Transaction, row: Row, action: str, by: Decider, *, after: str, reason: str | None) -> None:
    entry = audit.entry(
        action,
        "approval",
        row["id"],
        principal=by.principal,
        tenant=row["tenant"],
        before=row["state"],
        after=after,
        reason=reason,
        run_id=row["run_id"],
    )
    audit.record(tx, [entry])


def _answer_again(row: Row, votes: list[Row], said: Said, by: Decider) -> Row:
    """A double click gets the same answer as the click; another decision is told the one that stands."""
    own = next((vote for vote in votes if vote["principal"] == by.principal), None)
    hash = None if said.arguments is None else payloads.digest(payloads.encode(dict(said.arguments)))
    is_same = own is not None and own["decision"] == said.choice and hash in (None, own["arguments_hash"])
    if is_same:
        return row
    raise Conflict(f"approval {row['id']} {_standing(row)}; that decision stands")


def _standing(row: Row) -> str:
    at = isoformat(row["decided_at"]) if row["decided_at"] else ""
    match row["state"]:
        case ApprovalState.EXPIRED:
            return f"expired at {at}"
        case ApprovalState.WITHDRAWN:
            return f"was withdrawn at {at}, because its run has ended"
        case ApprovalState.RETURNED:
            return f"was sent back for revision by {row['decided_by']} at {at}"
        case state:
            return f"was {state} by {row['decided_by']} at {at}"


# --- handing on --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Handover:
    """To whom an approval is given, and why. `channels` are where people are told; one of them may be that person."""

    to: str
    note: str = ""
    channels: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The channel that it is given to; else all of them, which say whose it is now."""
        return tuple(each for each in self.channels if recipient_of(each) == self.to) or self.channels


async def delegate(db: Database, approval_id: str, handover: Handover, by: Decider) -> dict[str, Any]:
    """Gives an approval to a named principal, such as `key:grace` or `cli:grace`, who alone decides it then.

    Senior reviewers may still. Raises NotFound, Forbidden, Conflict where it is decided, InvalidInput for nobody.
    """
    row = await db.transaction(lambda tx: _delegate(tx, approval_id, handover, by))
    db.notify(runs.WAKE_RUNS)
    return public(row)


def _delegate(tx: Transaction, approval_id: str, handover: Handover, by: Decider) -> Row:
    row = _lock(tx, approval_id, by)
    if row["state"] != ApprovalState.PENDING:
        raise Conflict(f"approval {approval_id} {_standing(row)}; nobody needs to decide it any more")
    _check_delegate(tx, row, handover)
    _refuse(tx, row, _asked(tx, row, []), by)
    tx.execute("delegate_approval", id=approval_id, assigned_to=handover.to)
    reason = f"to {handover.to}" + (f": {handover.note}" if handover.note else "")
    _record(tx, row, "approval.delegated", by, after=row["state"], reason=reason)
    given = _find(tx, approval_id, by.tenant)
    asking.queue_notices(tx, [given], {approval_id: handover.told}, "delegated")
    return given


def _check_delegate(tx: Transaction, row: Row, handover: Handover) -> None:
    to = handover.to
    told = _why_nobody(tx, row, handover)
    if told is not None:
        raise InvalidInput(f"to: {told}", [FieldError("to", told)])
    if to == row["requested_by"]:
        told = f"{to} has asked for it, and nobody approves what they asked for"
        raise InvalidInput(f"to: {told}", [FieldError("to", told)])


def _why_nobody(tx: Transaction, row: Row, handover: Handover) -> str | None:
    """Why nobody of that name could decide it."""
    to = handover.to
    kind, _, name = to.partition(":")
    if kind not in ("key", "cli", "api", *KINDS) or not name.strip() or len(to) > 255:
        return f"{to!r} is nobody; write key:NAME for the holder of an API key, or cli:USER"
    if kind == "key" and tx.fetch_one("active_key_of_name", name=name) is None:
        return f"there is no active API key named {name!r}; `pilothouse keys list` shows them"
    if kind not in KINDS:
        return None
    known = [recipient_of(each) for each in handover.channels]
    if to not in known:
        return f"no message goes to {to!r}; approval_channels has {', '.join(known) or 'none'}"
    if row["quorum"] > 1 or row["reviewer"] == "admin":
        return f"{to!r} is a channel, and it takes a key to decide this; write key:NAME"
    return None
