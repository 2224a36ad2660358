"""Models for an attempt in a process of its own: it asks its worker, which has the keys and keeps the records."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from pilothouse import errors
from pilothouse.control.attempts import ClaimedRun
from pilothouse.domain.lanes import Lane
from pilothouse.engine.wire import Frame
from pilothouse.errors import AnswerMalformed, FatalError, LimitReached, ModelUnavailable, ReachedLimit, Withheld
from pilothouse.llm.extra import MISSING
from pilothouse.llm.messages import dump_response, load_response
from pilothouse.llm.prompts import Answer, Asker, Prompt

if TYPE_CHECKING:
    from pydantic import TypeAdapter

NO_MODELS: Frame = {"failed": {"type": "FatalError", "message": MISSING}}


class Asks(Protocol):
    """Sends a frame to the worker and waits for its answer."""

    async def __call__(self, kind: str, **fields: Any) -> Any: ...


class RemoteModels:
    """What `Attempt.services.around.models` is in an isolated process."""

    def __init__(self, ask: Asks) -> None:
        self._ask = ask

    async def answer(self, prompt: Prompt) -> Answer:
        said = await self._ask("model", prompt=_describe_prompt(prompt))
        if "withheld" in said:
            raise Withheld(said["withheld"])
        if "failed" in said:
            raise _failure_from(**said["failed"])
        response = load_response(said["response"])
        if prompt.on_piece is not None and response.text:
            prompt.on_piece(response.text)
        return Answer(response, ())


def _parameters() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from pydantic_ai.models import ModelRequestParameters

    return TypeAdapter(ModelRequestParameters)


def _describe_prompt(prompt: Prompt) -> Frame:
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    return {
        "route": prompt.route,
        "messages": ModelMessagesTypeAdapter.dump_json(list(prompt.messages)).decode(),
        "parameters": _parameters().dump_json(prompt.parameters).decode(),
        "settings": dict(prompt.settings),
        "cache_seconds": prompt.cache_seconds,
        "step": prompt.asker.step,
        "calls_before": prompt.asker.calls_before,
    }


def prompt_from(told: Frame, claim: ClaimedRun) -> Prompt:
    """Whatever the process says, it asks for its own run."""
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    asker = Asker(
        claim.run_id,
        claim.agent,
        claim.tenant,
        Lane(claim.lane),
        int(told["calls_before"]),
        str(told["step"]),
        claim.attempt,
        claim.user_id,
    )
    return Prompt(
        route=told["route"],
        messages=ModelMessagesTypeAdapter.validate_json(told["messages"]),
        parameters=_parameters().validate_json(told["parameters"]),
        asker=asker,
        settings=told["settings"],
        cache_seconds=told["cache_seconds"],
    )


def describe_answer(answer: Answer) -> Frame:
    return {"response": dump_response(answer.response)}


def describe_failure(error: Exception) -> Frame:
    told: Frame = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ModelUnavailable):
        told |= {"retry_after_seconds": error.retry_after_seconds, "was_asked": error.was_asked}
    if isinstance(error, LimitReached):
        told["reached"] = asdict(error.reached)
    return {"failed": told}


def _failure_from(
    type: str,
    message: str,
    retry_after_seconds: float | None = None,
    was_asked: bool = False,
    reached: Frame | None = None,
) -> Exception:
    if reached is not None:
        return LimitReached(message, ReachedLimit(**reached))
    if retry_after_seconds is not None:
        return ModelUnavailable(message, retry_after_seconds, was_asked=was_asked)
    if type == AnswerMalformed.__name__:
        return AnswerMalformed(message)
    kind = getattr(errors, type, FatalError)
    error: Exception = FatalError.__new__(kind) if issubclass(kind, FatalError) else errors.ModelRefused(message)
    error.args = (message,)
    return error
