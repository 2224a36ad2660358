"""Halts a run that runs away, with the evidence; a person lets it go on by a signal, or ends it.

The guard of a model's loop (`guard.py`) looks at the rounds of one question. This looks at the whole run: at calls that
code and models make in whatever step, at errors that are caught and met again, and at tokens.
"""

from __future__ import annotations

from typing import Any

from pilothouse import payloads
from pilothouse.control.calls import ModelCall
from pilothouse.control.halts import HALTED, RUNAWAY_KIND
from pilothouse.domain.runaways import MINUTE_US, Excess, RunawayRule, is_repeated
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.failures import describe_error
from pilothouse.engine.guard import SHOWN
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.signals import halt
from pilothouse.errors import FatalError, StepError
from pilothouse.store.database import Row
from pilothouse.telemetry.events import RunawaySuspected

NAME = "runaway"
MARK_SHOWN = 8

# What is counted is counted on replay as well, in whatever order branches come: every attempt halts at the same place.


async def note_stored(attempt: Attempt, asked: StepRequest, stored: Row, tool: str | None = None) -> None:
    """A step that an earlier attempt has finished; `tool` where it was a call of one."""
    if stored["state"] != "succeeded":
        await _note_error(attempt, asked, payloads.decode(stored["error"]))
    elif tool is not None:
        await note_result(attempt, asked, tool, stored["result"])


async def note_result(attempt: Attempt, asked: StepRequest, tool: str, result: str) -> None:
    """A call of a tool and its result, as JSON. Halts where both are the same too often."""
    rule = _rule(attempt)
    if rule is None or rule.same_calls <= 0:
        return
    mark = payloads.digest(f"{asked.hash}:{result}")
    times = attempt.count(f"call {mark}")
    if is_repeated(times, rule.same_calls):
        reason = f"tool {tool!r} was called {times} times with the same arguments and the same result"
        evidence = {"tool": tool, "request": asked.text, "result": result[:SHOWN], "times": times}
        await _halt_at(attempt, f"{mark[:MARK_SHOWN]}-{times}", reason, evidence)


async def note_error(attempt: Attempt, asked: StepRequest, error: StepError) -> None:
    """A step that has failed for good. Halts where the same error has come too often."""
    await _note_error(attempt, asked, payloads.decode(attempt.redact(describe_error(error))))


async def _note_error(attempt: Attempt, asked: StepRequest, told: dict[str, Any]) -> None:
    rule = _rule(attempt)
    if rule is None or rule.same_errors <= 0:
        return
    error = f"{told['type']}: {told['message']}"
    mark = payloads.digest(error)
    times = attempt.count(f"error {mark}")
    if is_repeated(times, rule.same_errors):
        reason = f"the same error came {times} times: {error[:SHOWN]}"
        await _halt_at(
            attempt, f"{mark[:MARK_SHOWN]}-{times}", reason, {"error": error, "step": asked.key, "times": times}
        )


def note_tokens(attempt: Attempt, call: ModelCall) -> None:
    """What a model has answered counts for the minute in which it was asked."""
    attempt.tokens[call.started_at // MINUTE_US] += call.usage.total


async def check_velocity(attempt: Attempt, asked: StepRequest) -> None:
    """Halts before a question to a model, where the run has used far more tokens in this minute than its like."""
    runaways, name = attempt.services.around.runaways, f"{asked.key}.{NAME}{HALTED}"
    if runaways is None:
        return
    tokens = attempt.tokens[attempt.now_us() // MINUTE_US]
    excess = await runaways.too_fast(tokens, attempt.agent.version.fingerprint)
    if excess is not None or attempt.journal.knows(name):
        await _halt(attempt, asked.key, NAME, *_told(excess))


def _told(excess: Excess | None) -> tuple[str, dict[str, int]]:
    """Where an earlier attempt was halted, what it has noted stands."""
    if excess is None:
        return "it used tokens too fast", {}
    usual = f"{excess.limit:,} is far beyond the busiest minute of its version's runs"
    reason = f"it used {excess.tokens:,} tokens in this minute, and {usual}"
    return reason, excess._asdict()


async def _halt_at(attempt: Attempt, mark: str, reason: str, evidence: Any) -> None:
    await _halt(attempt, NAME, mark, reason, evidence)


async def _halt(attempt: Attempt, name: str, question: str, reason: str, evidence: Any) -> None:
    if not attempt.journal.knows(f"{name}.{question}{HALTED}"):
        claim = attempt.claim
        attempt.services.emitter.emit(RunawaySuspected(claim.run_id, claim.agent, reason, f"{name}.{question}"))
    told = f"the run may have run away: {reason}"
    said = await halt(attempt, name, question, told, evidence, RUNAWAY_KIND)
    if isinstance(said, dict) and said.get("stop"):
        raise FatalError(f"the run was halted ({reason}) and stopped: {said['stop']}")


def _rule(attempt: Attempt) -> RunawayRule | None:
    runaways = attempt.services.around.runaways
    return None if runaways is None else runaways.rule
