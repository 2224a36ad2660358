"""How a model call fails, in the few kinds that matter for what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from pilothouse.errors import PilothouseError

if TYPE_CHECKING:
    from pydantic_ai.exceptions import ModelHTTPError

FaultKind = Literal[
    "rate_limited",
    "quota_exceeded",
    "unavailable",
    "timeout",
    "unreachable",
    "connection",
    "malformed",
    "breaker_open",
    "no_key",
    "wrong_key",
    "unknown_model",
    "too_long",
    "rejected",
    "over_limit",
]

KINDS: tuple[str, ...] = get_args(FaultKind)

TEMPORARY = frozenset({"rate_limited", "unavailable", "timeout", "unreachable", "connection", "breaker_open"})
"""Kinds that pass by themselves, so that a run waits. A malformed answer may be paid, and come again for ever: it is
asked for anew only as often as the run may fail. The others need somebody to change something.
"""

SICK = frozenset({"unavailable", "timeout", "unreachable", "connection", "malformed"})
"""Kinds that speak of the dependency's health, so that its breaker counts them. A limit is no illness."""

MAY_BE_PAID = frozenset({"timeout", "connection", "malformed"})
"""Kinds after which nobody knows whether the provider counts the question."""

ADVICE = {
    "quota_exceeded": "pay the provider's bill, or give the route another model",
    "wrong_key": "check that key in the worker's environment",
    "unknown_model": "correct the model's name in the route",
    "too_long": "shorten the prompt, or give the agent a context window",
    "rejected": "the provider does not accept this request as it is",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`retry_after_seconds` is what the provider, a breaker or a bucket asks for; None where nobody said.

    `was_asked`: a request went out to the provider.
    """

    kind: FaultKind
    message: str
    retry_after_seconds: float | None = None
    was_asked: bool = True

    @property
    def is_temporary(self) -> bool:
        return self.kind in TEMPORARY

    @property
    def is_sick(self) -> bool:
        return self.kind in SICK


def read_fault(error: Exception) -> Fault | None:
    """What an error of a provider's client means; None for one that is no failure of the call but of our own.

    A reply that is not what the protocol says makes the clients stumble in many ways: whatever else they raise, the
    reply was malformed.
    """
    from pydantic_ai import exceptions as raised

    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return Fault("timeout", "no answer in time")
    if isinstance(error, PilothouseError | raised.UserError):
        return None
    if isinstance(error, raised.UnexpectedModelBehavior):
        return Fault("malformed", _told(error))
    unreachable = _unreachable(error)
    if unreachable is not None:
        return Fault("unreachable", unreachable)
    if not isinstance(error, raised.ModelAPIError):
        return Fault("malformed", f"the reply is not what the protocol says: {type(error).__name__}: {_told(error)}")
    return Fault(_kind(error), _told(error), error.retry_after)


def _unreachable(error: BaseException) -> str | None:
    """What could not be connected to, and why; None where a request may have gone out."""
    import httpx2

    chain = list(_causes(error))
    for each in chain:
        if isinstance(each, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            url = each.request.url
            place = f"{url.host}:{url.port}" if url.port else url.host
            return f"{place} cannot be reached: {str(chain[-1]) or type(each).__name__}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: Exception) -> FaultKind:
    from pydantic_ai import exceptions as raised

    kinds: tuple[tuple[type[Exception], FaultKind], ...] = (
        (raised.ModelRateLimitError, "rate_limited"),
        (raised.ModelQuotaExceededError, "quota_exceeded"),
        (raised.ModelUnavailableError, "unavailable"),
        (raised.ModelServerError, "unavailable"),
        (raised.ModelTimeoutError, "timeout"),
        (raised.ModelRequestTimeout, "timeout"),
        (raised.ModelConnectionError, "connection"),
        (raised.ModelContextWindowExceededError, "too_long"),
        (raised.ModelAuthenticationError, "wrong_key"),
        (raised.ModelNotFoundError, "unknown_model"),
        (raised.ModelRequestRejectedError, "rejected"),
    )
    return next((kind for type, kind in kinds if isinstance(error, type)), "unavailable")


def as_kind(text: str) -> FaultKind:
    """A kind that was kept as text."""
    return cast(FaultKind, text) if text in KINDS else "unavailable"


MESSAGE_SHOWN = 500


def _told(error: Exception) -> str:
    from pydantic_ai.exceptions import ModelHTTPError

    text = _told_by_provider(error) if isinstance(error, ModelHTTPError) else str(error)
    return " ".join(text.split())[:MESSAGE_SHOWN]


def _told_by_provider(error: ModelHTTPError) -> str:
    """The status, and the provider's own sentence out of the body around it."""
    body = error.body
    inside = body.get("error", body) if isinstance(body, Mapping) else body
    said = inside.get("message", inside) if isinstance(inside, Mapping) else inside
    meant = f". Did you mean {error.suggested_model_id!r}?" if error.suggested_model_id else ""
    return f"{error.status_code}: {said}{meant}" + (f". {error.hint}" if error.hint else "")
