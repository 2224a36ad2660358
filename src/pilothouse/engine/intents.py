"""Intents: before a call that changes the world or costs money goes out, the journal says that it will.

What the call may use is reserved in the same transaction, which is refused where a limit has no room. A later attempt
that finds the intent without a result does not know whether the call took place: it sends again what may be sent again,
and for the rest asks the tool's `verify`, or a person; it never just calls again. An intent whose call did not go out
after all, because a kill switch was tripped in that moment, is withdrawn; so is one whose tool was told to come back
later and did nothing. The next call has an intent of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control.bookings import Booking
from pilothouse.control.calls import StepCalls
from pilothouse.control.effects import Intent
from pilothouse.control.halts import HALTED
from pilothouse.control.ledger import Charge, Hold
from pilothouse.domain.limits import NOTHING, Amounts, Payer
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.failures import MAY_HAVE_HAPPENED
from pilothouse.engine.journal import INTENT_KIND, StepRequest
from pilothouse.engine.limits import wait_for_room
from pilothouse.engine.signals import halt
from pilothouse.engine.signature import encode_result
from pilothouse.engine.steps import make_checkpoint, store
from pilothouse.errors import FatalError, LimitReached, RetryLater
from pilothouse.store.database import Row

WITHDRAWN_BY = "switch"
"""Who says that an effect whose intent was withdrawn did not take place."""

Verify = Callable[[], Awaitable[Any]]
"""What a call came to, if it took place; None or False where it did not, True where it did and returned nothing."""


class Found(NamedTuple):
    """What an earlier attempt's call came to, as JSON."""

    result: str


class Ready(NamedTuple):
    """The call may go out now, as the step's `number`th; what it uses is settled against this reservation."""

    reservation_id: str | None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Intention:
    """A call that is about to go out. `intent` is None where it changes nothing; `amounts` are nothing where it costs
    nothing either, so that no intent is written.

    `is_repeatable`: to send it again is to do it once.
    """

    asked: StepRequest
    tool: str
    payer: Payer
    amounts: Amounts
    intent: Intent | None
    is_repeatable: bool
    verify: Verify | None


class _Note(NamedTuple):
    """What the journal holds of an intent or of its withdrawal: by which attempt, and with which reservation.

    `wake_at` is when a tool that was told to come back later may be called again.
    """

    attempt: int
    reservation_id: str
    wake_at: int


class _Said(NamedTuple):
    """What `verify` or a person says of a call."""

    happened: bool
    result: Any = None


class Intents:
    """The intents of one call, in the order in which its attempts have written them."""

    def __init__(self, attempt: Attempt, call: Intention) -> None:
        self._attempt = attempt
        self._call = call
        self._number = 1
        self._standing: Ready | None = None
        self._is_own = False

    async def write(self) -> Ready | Found:
        """Writes the intent durably and reserves what the call uses; waits where a limit has no room.

        Where an earlier attempt had the same intent and left no result: what `verify` or a person says it came to.
        """
        if self._standing is not None:
            return self._standing
        journal, call, left = self._attempt.journal, self._call, list[Charge]()
        if not any(call.amounts):
            return await self._without_intent()
        self._pass_over_settled("intent")
        if journal.knows(self._key("intent")):
            earlier = self._noted("intent")
            if not await self._was_withdrawn(earlier.attempt) and not self._has_failed(earlier):
                if call.is_repeatable:
                    self._standing = Ready(earlier.reservation_id, self._number)
                    return self._standing
                said = await (_verified(call.verify) if call.verify is not None else self._ask_person())
                if said.happened:
                    return await _keep(self._attempt, call, said.result, earlier.reservation_id)
                left.append(Charge(earlier.reservation_id, NOTHING, "it did not happen"))
            self._number += 1  # should this attempt die too, its own intent is another question
        self._standing = await self._book(tuple(left))
        return self._standing

    async def _without_intent(self) -> Ready:
        """What changes nothing and costs nothing just waits where it was told to."""
        self._pass_over_settled("withdrawn")
        if await self._was_withdrawn(0):
            self._number += 1
        self._standing = Ready(None, self._number)
        return self._standing

    def _pass_over_settled(self, what: str) -> None:
        """Goes to the latest note of its kind; those before it are dealt with."""
        journal = self._attempt.journal
        while journal.knows(f"{self._call.asked.key}.{_numbered(what, self._number + 1)}"):
            for each in ("intent", "withdrawn", "happened"):
                journal.pass_over(self._key(each))
            journal.pass_over(self._key("happened") + HALTED)
            self._number += 1

    def _has_failed(self, intent: _Note) -> bool:
        """Whether the call is known to have failed, so that it may be made again."""
        failure = self._attempt.journal.failure(self._call.asked.key)
        if failure is None or failure["attempt"] < intent.attempt:
            return False
        return not payloads.decode(failure["error"]).get(MAY_HAVE_HAPPENED, False)

    async def put_off(self, error: RetryLater, calls: StepCalls) -> NoReturn:
        """Suspends the run until the instant that its tool was told, once it is kept that the call did nothing."""
        attempt, standing = self._attempt, self._standing
        assert standing is not None
        wake_at = attempt.now_us() + int(error.seconds * 1_000_000)
        reservation_id = standing.reservation_id
        charges = () if reservation_id is None else (Charge(reservation_id, NOTHING, "nothing was done"),)
        ends = () if self._call.intent is None else (self._call.intent.ended("failed"),)
        note, _ = self._open("withdrawn")
        text = self._text(reservation_id, wake_at)
        with attempt.busy():
            checkpoint = make_checkpoint(attempt, note, result=text, started_at=attempt.now_us(), tries=1)
            booking = Booking(charges=charges, ends=ends)
            await attempt.services.writer.checkpoint(checkpoint._replace(booking=booking, calls=calls))
        await attempt.park_anywhere((), wake_at, f"{self._told_later()}: {error}")

    def _told_later(self) -> str:
        return f"the tool of step {self._call.asked.key!r} was told to come back later"

    async def withdraw(self, *, has_tried: bool) -> None:
        """Notes that no call is under way by the intent that this attempt has written, if it has written one.

        Its reservation is given back; only what a try that failed has used is spent.
        """
        if not self._is_own or self._standing is None or self._standing.reservation_id is None:
            return
        call, reservation_id = self._call, self._standing.reservation_id
        note, stored = self._open("withdrawn")
        if stored is None:
            used = call.amounts._replace(microusd=0) if has_tried else NOTHING
            ends = () if call.intent is None else (call.intent.ended("failed", WITHDRAWN_BY),)
            booking = Booking(charges=(Charge(reservation_id, used, "a kill switch was tripped"),), ends=ends)
            await store(self._attempt, note, self._text(reservation_id), booking=booking)
        self._number += 1  # another call needs another intent
        self._standing, self._is_own = None, False

    async def _book(self, left: tuple[Charge, ...]) -> Ready:
        asked, stored = self._open("intent")
        if stored is not None:
            return Ready(_note_in(stored).reservation_id, self._number)
        claim, call, id, tries = self._attempt.claim, self._call, new_id(), 0
        intent = None if call.intent is None else call.intent._replace(number=self._number)
        booking = Booking(Hold(id, call.asked.key, claim.attempt, call.payer, call.amounts), intent, left)
        while True:
            self._standing, self._is_own = Ready(id, self._number), True
            try:
                await _whole(store(self._attempt, asked, self._text(id), booking=booking))
            except LimitReached as error:
                self._standing, self._is_own = None, False
                tries += 1
                await wait_for_room(self._attempt, call.asked.key, error, tries)
            else:
                return self._standing

    async def _was_withdrawn(self, by_attempt: int) -> bool:
        """By that attempt, or a later one. Where its tool was told to come back later, that instant has come then."""
        if not self._attempt.journal.knows(self._key("withdrawn")):
            return False
        withdrawal = self._noted("withdrawn")
        if withdrawal.attempt < by_attempt:
            return False
        if withdrawal.wake_at > self._attempt.now_us():
            await self._attempt.park_anywhere((), withdrawal.wake_at, self._told_later())
        return True

    def _noted(self, what: str) -> _Note:
        """A note that is there."""
        _, stored = self._open(what)
        assert stored is not None
        return _note_in(stored)

    def _open(self, what: str) -> tuple[StepRequest, Row | None]:
        return self._attempt.journal.open_beside(self._key(what), INTENT_KIND, {what: self._call.asked.hash})

    def _key(self, what: str) -> str:
        return f"{self._call.asked.key}.{self._name(what)}"

    def _name(self, what: str) -> str:
        return _numbered(what, self._number)

    def _text(self, reservation_id: str | None, wake_at: int = 0) -> str:
        told = {"attempt": self._attempt.claim.attempt, "reservation": reservation_id or ""}
        return payloads.encode(told | ({"wake_at": wake_at} if wake_at else {}))

    async def _ask_person(self) -> _Said:
        asked, tool = self._call.asked, self._call.tool
        reason = f"did the call of tool {tool!r} in step {asked.key!r} happen? it was going out, and no result was kept"
        question = self._name("happened")
        said = await halt(self._attempt, asked.key, question, reason, {"tool": tool, "request": asked.text})
        if isinstance(said, bool):
            return _Said(said)
        if isinstance(said, dict) and isinstance(said.get("happened"), bool):
            return _Said(said["happened"], said.get("result"))
        raise FatalError(
            f'the answer to {asked.key}.{question} is true, false or {{"happened": true, "result": …}}: {said!r}'
        )


def _note_in(stored: Row) -> _Note:
    told = payloads.decode(stored["result"])
    return _Note(int(told["attempt"]), str(told.get("reservation", "")), int(told.get("wake_at", 0)))


def _numbered(what: str, number: int) -> str:
    return what if number == 1 else f"{what}-{number}"


async def _verified(verify: Verify) -> _Said:
    said = await verify()
    return _Said(said is not None and said is not False, None if said is True else said)


async def _whole(writing: Coroutine[Any, Any, None]) -> None:
    """Waits until it is written even where the run is stopped meanwhile: what is written next must come after it."""
    task = asyncio.ensure_future(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _keep(attempt: Attempt, call: Intention, result: Any, reservation_id: str) -> Found:
    found = Found(encode_result(result, None, f"verify of tool {call.tool!r}"))
    who = "verify" if call.verify is not None else "person"
    ends = () if call.intent is None else (call.intent.ended("succeeded", who),)
    booking = Booking(charges=(Charge(reservation_id, call.amounts, f"it happened, says {who}"),), ends=ends)
    with attempt.busy():
        checkpoint = make_checkpoint(attempt, call.asked, result=found.result, started_at=attempt.now_us(), tries=1)
        await attempt.services.writer.checkpoint(checkpoint._replace(booking=booking))
    return found
