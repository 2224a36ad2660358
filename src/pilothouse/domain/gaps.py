"""What lies between a run's attempts: the queue, and what it waited for.

What woke a run is not written down: it is the last thing that happened before it went on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Row = Mapping[str, Any]
GapKind = Literal["queue", "wait", "approval"]
GapPart = Literal["queue", "backoff", "people", "signal", "timer", "child", "hold"]

_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_PART_OF_WAIT: Mapping[str, GapPart] = {
    "signal": "signal",
    "child": "child",
    "approval": "people",
    "switch": "hold",
    "limit": "hold",
}
_BY_A_PERSON = (".continue", ".happened")
"""Signals that the engine itself waits for: a person sends them."""
_A_SWITCH = "switch "
"""In the reason of a release: a switch is tripped, and the run is held until somebody resets it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows of a run, instants in microseconds, errors decoded. `notes` are its audit records of
    suspensions, releases, snoozes and redrives, with `at`, `action`, `reason` and `attempt`; effects have
    `is_under_way`; the result of a timer's step is its instant; `now` is the database's clock.
    """

    run: Row
    now: int
    attempts: Sequence[Row] = ()
    steps: Sequence[Row] = ()
    model_calls: Sequence[Row] = ()
    tool_calls: Sequence[Row] = ()
    effects: Sequence[Row] = ()
    approvals: Sequence[Row] = ()
    signals: Sequence[Row] = ()
    children: Sequence[Row] = ()
    waits: Sequence[Row] = ()
    notes: Sequence[Row] = ()

    @property
    def has_ended(self) -> bool:
        return self.run["state"] in _ENDED


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch between attempts. `others` are approvals that were asked for at the same time."""

    kind: GapKind
    part: GapPart
    name: str
    started_at: int
    ended_at: int | None
    state: str
    detail: str = ""
    id: str | None = None
    others: tuple[Row, ...] = ()


class _Event(NamedTuple):
    """What may have woken the run."""

    at: int
    kind: GapKind
    part: GapPart
    name: str
    id: str | None = None
    state: str = "ended"


def gaps_of(facts: Facts) -> list[Gap]:
    """All of them, the first from the submit; none is empty, and none overlaps an attempt."""
    found: list[Gap] = []
    at, before = int(facts.run["created_at"]), None
    for attempt in facts.attempts:
        found += _between(facts, before, at, max(at, attempt["started_at"]))
        at, before = max(at, attempt["finished_at"] or facts.now), attempt
    if before is not None and before["finished_at"] is None:
        return found
    if not facts.has_ended:
        return found + list(_open(facts, before, at))
    return found + list(_between(facts, before, at, max(at, facts.run["finished_at"])))


def _between(facts: Facts, before: Row | None, start: int, end: int) -> Iterator[Gap]:
    """A gap that is over."""
    if start >= end:
        return
    if before is None:
        yield _queue(start, end)
        return
    put_back = _put_back(facts, before, start, end)
    if put_back is not None:
        yield put_back
        return
    woke = _last_event(facts, start, end)
    if woke is None and before["state"] == "suspended":
        reason = _reason(facts, before)
        yield Gap("wait", "hold" if reason else "timer", reason or "a wait", start, end, "ended")
        return
    if woke is None or (before["state"] != "suspended" and woke.name != "redrive"):
        yield Gap("wait", "backoff", "back-off", start, end, "ended", detail=f"after attempt {before['number']}")
        return
    others = tuple(row for row in _asked_between(facts, start, woke.at) if row["id"] != woke.id)
    part = "people" if woke.part == "signal" and woke.name.endswith(_BY_A_PERSON) else woke.part
    if woke.at > start:
        detail = _reason(facts, before) if before["state"] == "suspended" else ""
        yield Gap(woke.kind, part, woke.name, start, woke.at, woke.state, detail, woke.id, others)
    if end > woke.at:
        yield _queue(max(start, woke.at), end)


def _put_back(facts: Facts, before: Row, start: int, end: int) -> Gap | None:
    """What follows an attempt that a worker gave back, for a switch or because it stopped, or that snoozed."""
    for row in facts.notes:
        reason = row["reason"] or ""
        match row["action"] if row["attempt"] == before["number"] else None:
            case "run.snoozed":
                return Gap("wait", "timer", "snooze", start, end, "ended", detail=reason)
            case "run.released" if _A_SWITCH in reason:
                return Gap("wait", "hold", reason, start, end, "ended")
            case "run.released":
                return Gap("queue", "queue", "queue", start, end, "ended", detail=reason)
    return None


def _open(facts: Facts, before: Row | None, start: int) -> Iterator[Gap]:
    """The gap that the run is in now."""
    due, state = facts.run["available_at"], facts.run["state"]
    if due is not None and due <= facts.now:
        yield from _woken(facts, before, start, max(start, due))
        return
    if state == "queued":
        part: GapPart = "timer" if before is None else "backoff"
        yield Gap("wait", part, "not due yet" if before is None else "back-off", start, None, state)
        return
    pending = [row for row in facts.approvals if row["state"] == "pending"]
    if pending:
        first_asked, *others = pending
        yield Gap(
            "approval", "people", first_asked["title"], start, None, "pending", id=first_asked["id"],
            others=tuple(others),
        )  # fmt: skip
        return
    kinds = sorted({row["kind"] for row in facts.waits}, key=list(_PART_OF_WAIT).index)
    names = [_waited_for(row["kind"], row["name"]) for row in facts.waits]
    name = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "timer"
    part = _PART_OF_WAIT[kinds[0]] if kinds else "timer"
    asks_a_person = part == "signal" and name.endswith(_BY_A_PERSON)
    detail = _reason(facts, before) if before is not None else ""
    yield Gap("wait", "people" if asks_a_person else part, name, start, None, "waiting", detail)


def _waited_for(kind: str, name: str) -> str:
    """A wait in words; that for a limit is named `account/period/unit@epoch`."""
    if kind != "limit":
        return f"{kind} {name}"
    account, period, unit = name.rpartition("@")[0].rsplit("/", 2)
    what = "dollars" if unit == "microusd" else unit
    return f"room for {what} of {account}" + ("" if period == "run" else f" on {period}")


def _woken(facts: Facts, before: Row | None, start: int, due: int) -> Iterator[Gap]:
    """What was waited for, which is over, and the queue that the run is in now."""
    if before is not None:
        yield from _between(facts, before, start, due)
    elif due > start:
        yield Gap("wait", "timer", "not due yet", start, due, "ended")
    yield Gap("queue", "queue", "queue", due, None, "queued")


def _queue(start: int, end: int) -> Gap:
    return Gap("queue", "queue", "queue", start, end, "ended")


def _last_event(facts: Facts, start: int, end: int) -> _Event | None:
    """What happened last between two instants, of all that may wake a run."""
    found = [event for event in _events(facts) if start <= event.at <= end]
    return max(found, key=lambda event: event.at, default=None)


def _events(facts: Facts) -> Iterator[_Event]:
    for row in facts.approvals:
        if row["decided_at"] is not None:
            yield _Event(row["decided_at"], "approval", "people", row["title"], row["id"], row["state"])
    for row in facts.signals:
        yield _Event(row["created_at"], "wait", "signal", f"signal {row['name']}")
    for row in facts.children:
        if row["finished_at"] is not None:
            yield _Event(row["finished_at"], "wait", "child", f"child {row['agent']}", row["id"])
    for row in facts.steps:
        if row["kind"] == "timer" and isinstance(row["result"], int):
            yield _Event(row["result"], "wait", "timer", f"timer {row['key']}")
    for row in facts.notes:
        if row["action"] == "run.redriven":
            yield _Event(row["at"], "wait", "people", "redrive")


def _asked_between(facts: Facts, start: int, end: int) -> Iterator[Row]:
    """The approvals that people were asked for in a gap."""
    for row in facts.approvals:
        if row["requested_at"] <= end and (row["decided_at"] is None or row["decided_at"] >= start):
            yield row


def _reason(facts: Facts, attempt: Row) -> str:
    """Why an attempt was suspended, where the engine has said so."""
    told = [
        row["reason"]
        for row in facts.notes
        if row["action"] == "run.suspended" and row["attempt"] == attempt["number"] and row["reason"]
    ]
    return str(told[-1]) if told else ""
