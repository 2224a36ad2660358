"""Effects: calls that change the world outside, known before they go out and until it is known what became of them.

One of which nobody knows whether it took place is open: a person says so once, which answers the question of its run,
settles what was reserved for it and marks the effect, in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pilothouse import payloads
from pilothouse.control import audit, ledger, runs, waits
from pilothouse.control.halts import HALTED
from pilothouse.control.ledger import Charge
from pilothouse.control.views import view
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.effects import question_of
from pilothouse.domain.limits import NOTHING, Amounts
from pilothouse.domain.runs import TERMINAL
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

EffectEnding = Literal["succeeded", "failed", "unknown"]

AUDIT_SHOWN = 100
OPEN = frozenset({"intended", "unknown"})


class EffectEnd(NamedTuple):
    """What became of an effect, and who says so where it was not the tool itself."""

    id: str
    run_id: str
    attempt: int
    tenant: str
    tool: str
    state: EffectEnding
    resolved_by: str | None = None


class Intent(NamedTuple):
    """A call that is about to go out. `effect` is its class, `id` the same for every try of it; `number` counts the
    intents of its step, `arguments` is JSON, `fingerprint` that of its agent's code.
    """

    id: str
    run_id: str
    key: str
    attempt: int
    tenant: str
    agent: str
    tool: str
    platform: str | None
    effect: str
    arguments_hash: str
    arguments: str
    fingerprint: str
    number: int = 1

    def ended(self, state: EffectEnding, resolved_by: str | None = None) -> EffectEnd:
        return EffectEnd(self.id, self.run_id, self.attempt, self.tenant, self.tool, state, resolved_by)


def write(tx: Transaction, intents: Sequence[Intent], ends: Sequence[EffectEnd]) -> None:
    """In the transaction of the steps that they belong to."""
    tx.send_many("finish_effects", [_finish_row(end) for end in ends])
    tx.send_many("intend_effects", [intent._asdict() for intent in intents])
    audit.record(tx, [_ended_entry(end) for end in ends])


def _finish_row(end: EffectEnd) -> Row:
    return {"id": end.id, "run_id": end.run_id, "state": end.state, "resolved_by": end.resolved_by}


def _ended_entry(end: EffectEnd) -> audit.AuditRow:
    return audit.entry(
        f"effect.{end.state}",
        "effect",
        end.id,
        principal=end.resolved_by or f"run:{end.run_id}",
        tenant=end.tenant,
        before="intended",
        after=end.state,
        reason=end.tool,
        run_id=end.run_id,
        attempt=end.attempt,
    )


# --- looking at them ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EffectFilter:
    """Which effects; None: any. `since` is an instant in microseconds, `is_open`: nobody knows what became of them;
    `state` is succeeded or failed.
    """

    run_id: str | None = None
    agent: str | None = None
    tool: str | None = None
    tenant: str | None = None
    since: int | None = None
    is_open: bool = False
    state: str | None = None


async def list_effects(db: Database, wanted: EffectFilter, *, after: str | None = None, limit: int = 50) -> list[Row]:
    """Those of unknown outcome first, then the newest; `after` is `place_of` the last row of the page before.

    Raises InvalidInput for an `after` that is none.
    """
    place = None if after is None else _parse_place(after)
    return await db.read(lambda tx: _list(tx, wanted, place, limit))


def _list(tx: Transaction, wanted: EffectFilter, place: _Place | None, limit: int) -> list[Row]:
    rows = list[Row]()
    if wanted.state is None and (place is None or not place.rank):
        rows = _page(tx, "open_effects", wanted, place, limit)
    if not wanted.is_open and len(rows) < limit:
        rows += _page(tx, _closed(wanted), wanted, place if place and place.rank else None, limit - len(rows))
    return rows


def _closed(wanted: EffectFilter) -> str:
    """The statement that finds those with an outcome by the index of the narrowest filter."""
    if wanted.run_id is not None:
        return "other_effects_of_run"
    if wanted.agent is not None:
        return "other_effects_of_agent"
    if wanted.tool is not None:
        return "other_effects_of_tool"
    return "failed_effects" if wanted.state == "failed" else "other_effects"


_FILTERS: Mapping[str, tuple[str, ...]] = {
    "open_effects": ("run_id", "agent", "tool"),
    "other_effects": ("state",),
    "other_effects_of_run": ("run_id", "agent", "tool", "state"),
    "other_effects_of_agent": ("agent", "tool", "state"),
    "other_effects_of_tool": ("tool", "state"),
    "failed_effects": (),
}
"""What each statement asks for beside the tenant and the time."""


def _page(tx: Transaction, statement: str, wanted: EffectFilter, place: _Place | None, limit: int) -> list[Row]:
    return tx.fetch_all(
        statement,
        tenant=wanted.tenant,
        since=wanted.since,
        at=None if place is None else place.at,
        id=None if place is None else place.id,
        limit=limit,
        **{name: getattr(wanted, name) for name in _FILTERS[statement]},
    )


def place_of(row: Row) -> str:
    """Where a row stands in the list."""
    return f"{int(row['state'] != 'unknown')}.{row['intended_at']}.{row['id']}"


class _Place(NamedTuple):
    rank: int
    at: int
    id: str


def _parse_place(after: str) -> _Place:
    rank, _, rest = after.partition(".")
    at, _, id = rest.partition(".")
    if rank not in ("0", "1") or not (at.isascii() and at.isdecimal() and len(at) < 19) or not id:
        told = "is what `next` of the page before says"
        raise InvalidInput(f"after {told}, not {after!r}", [FieldError("after", told)])
    return _Place(int(rank), int(at), id)


def shown_state(row: Row) -> str:
    """An effect whose attempt ended before it could tell is unknown."""
    is_lost = row["state"] == "intended" and not row["is_under_way"]
    return "unknown" if is_lost else str(row["state"])


def public(row: Row) -> dict[str, Any]:
    """An effect as users see it."""
    state = shown_state(row) if "is_under_way" in row else row["state"]
    return {name: value for name, value in view(row).items() if name not in ("is_under_way", "now")} | {"state": state}


async def show_effect(db: Database, effect_id: str, *, tenant: str | None = None) -> dict[str, Any]:
    """One effect with its calls, the question that is asked about it and its audit. Raises NotFound."""
    return await db.read(lambda tx: _show(tx, effect_id, tenant))


def _show(tx: Transaction, effect_id: str, tenant: str | None) -> dict[str, Any]:
    row = find(tx, effect_id, tenant)
    calls = tx.fetch_all("calls_of_effect", run_id=row["run_id"], effect_id=effect_id)
    records = tx.fetch_all("audit_of_entity", entity_id=effect_id, after=0, limit=AUDIT_SHOWN)
    return public(row) | {
        "question": _question(tx, row),
        "resolve": resolve_command(effect_id) if shown_state(row) == "unknown" else None,
        "calls": [view(call) for call in _without_arguments(calls)],
        "audit": [view(record) for record in records],
    }


def _without_arguments(calls: Sequence[Row]) -> list[Row]:
    """The effect says them already, and large ones are kept elsewhere."""
    return [{name: value for name, value in call.items() if name != "arguments"} for call in calls]


def _question(tx: Transaction, row: Row) -> str | None:
    """What the run waits to be told, where it has asked."""
    if shown_state(row) != "unknown":
        return None
    asked = tx.fetch_one("checkpoint_by_key", run_id=row["run_id"], key=_question_of(row) + HALTED)
    return None if asked is None else str(payloads.decode(asked["result"])["reason"])


def _question_of(row: Row) -> str:
    return question_of(row["key"], row["number"])


def advice(tx: Transaction, run_id: str, signal: str) -> str | None:
    """How to answer the question of a run, where the signal that it waits for is about one of its effects."""
    for row in tx.fetch_all("effects_of_run", run_id=run_id):
        if row["state"] in OPEN and _question_of(row) == signal:
            return f"find out whether it took place, then say so: `{resolve_command(row['id'])}`"
    return None


def unknown_of(tx: Transaction, run_id: str) -> list[Row]:
    """The effects of a run of which nobody knows whether they took place."""
    return [row for row in tx.fetch_all("effects_of_run", run_id=run_id) if row["state"] == "unknown"]


def resolve_command(effect_id: str) -> str:
    return f"pilothouse effects resolve {effect_id} --happened | --did-not-happen --note …"


def find(tx: Transaction, effect_id: str, tenant: str | None = None) -> Row:
    """Raises NotFound, also for an effect of another tenant than the one that is given."""
    row = tx.fetch_one("effect_by_id", id=effect_id)
    if row is None or (tenant is not None and row["tenant"] != tenant):
        raise NotFound(f"there is no effect {effect_id}; `pilothouse effects list` shows the latest")
    return row


# --- what people say ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a person says of an effect: whether it took place, what it returned (any JSON data), and how they know."""

    happened: bool
    note: str
    result: Any = None

    @property
    def state(self) -> EffectEnding:
        return "succeeded" if self.happened else "failed"


async def resolve_effect(
    db: Database,
    effect_id: str,
    said: Resolution,
    *,
    principal: str,
    calendar: Calendar,
    tenant: str | None = None,
) -> dict[str, Any]:
    """Says of an open effect whether it took place: answers its run's question and settles what was reserved for it.

    The same answer again changes nothing. Raises NotFound, InvalidInput where a result goes with what did not happen,
    and Conflict where the effect is not open, or its run finds out by itself.
    """
    if not said.note.strip():
        raise InvalidInput("a note says how you know", [FieldError("note", "must not be empty")])
    if not said.happened and said.result is not None:
        raise InvalidInput("what did not happen has no result", [FieldError("result", "only where it happened")])
    try:
        answer = payloads.encode({"happened": said.happened, "result": said.result})
    except ValueError as error:
        raise InvalidInput(f"the result {error}", [FieldError("result", str(error))]) from error
    await db.transaction(lambda tx: _resolve(tx, find(tx, effect_id, tenant), said, answer, principal, calendar))
    db.notify(runs.WAKE_RUNS)
    return await show_effect(db, effect_id)


def _resolve(tx: Transaction, effect: Row, said: Resolution, answer: str, principal: str, calendar: Calendar) -> None:
    held = tx.fetch_all("held_of_step", run_id=effect["run_id"], key=effect["key"])
    charges = [_charge(row, said, principal) for row in held]
    batch = ledger.Batch(tx, (), charges, calendar)  # it locks the balances, which come before the run
    run = tx.fetch_one("lock_run", id=effect["run_id"])
    effect = find(tx, effect["id"])
    if effect["state"] == said.state and effect["resolved_by"] is not None:
        return
    _expect_open(tx, effect, run)
    marked = tx.fetch_one(
        "resolve_effect",
        id=effect["id"],
        state=said.state,
        number=effect["number"],
        resolved_by=principal,
        note=said.note,
    )
    assert marked is not None, "the effect was looked at under the lock of its run"
    if run is not None:
        _answer(tx, effect, answer, principal)
    batch.book((), charges)
    _record(tx, effect, said, principal)


def _charge(row: Row, said: Resolution, principal: str) -> Charge:
    if not said.happened:
        return Charge(row["id"], NOTHING, f"it did not happen, says {principal}")
    return Charge(row["id"], Amounts(row["microusd"], row["tokens"], row["actions"]), f"it happened, says {principal}")


def _expect_open(tx: Transaction, effect: Row, run: Row | None) -> None:
    id, state = effect["id"], effect["state"]
    if state not in OPEN:
        who = effect["resolved_by"] or "its tool"
        raise Conflict(f"effect {id} is not open: it has {state}, says {who}; `pilothouse effects show {id}`")
    if state == "unknown" or run is None or run["state"] in TERMINAL:
        return
    if effect["is_under_way"]:
        raise Conflict(f"the call of effect {id} is under way in attempt {effect['attempt']}; wait until it has ended")
    if _question(tx, effect) is None:
        raise Conflict(
            f"run {effect['run_id']} of effect {id} is {run['state']} and finds out by itself first: it makes the call "
            f"again where that does no harm, asks the tool's verify, or asks you; `pilothouse runs why {run['id']}`"
        )


def _answer(tx: Transaction, effect: Row, answer: str, principal: str) -> None:
    """Answers the question of the run, also one that it will only ask when it is redriven."""
    run_id, name = effect["run_id"], _question_of(effect)
    if tx.fetch_one("insert_signal", run_id=run_id, name=name, payload=answer, principal=principal) is not None:
        waits.release(tx, [{"run_id": run_id, "kind": "signal", "name": name}])


def _record(tx: Transaction, effect: Row, said: Resolution, principal: str) -> None:
    entry = audit.entry(
        "effect.resolved",
        "effect",
        effect["id"],
        principal=principal,
        tenant=effect["tenant"],
        before="unknown",
        after=said.state,
        reason=said.note,
        run_id=effect["run_id"],
        attempt=effect["attempt"],
    )
    audit.record(tx, [entry])
