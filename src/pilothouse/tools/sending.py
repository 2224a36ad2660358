"""What tools that send over HTTP say of an answer that did not come, or that told them to come back later."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pilothouse.errors import MayHaveHappened, RetryLater, ToolError

if TYPE_CHECKING:
    import httpx2

TOO_MANY = 429
LATER_SECONDS = 60.0
"""Where a 429 does not say when to come back."""


def refuse_failed(error: httpx2.HTTPError, what: str, *, changes_the_world: bool) -> NoReturn:
    """Raises ToolError where nothing can have been sent, else MayHaveHappened."""
    import httpx2

    told = f"{what}: {type(error).__name__}: {error}"
    never_sent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.LocalProtocolError)
    if changes_the_world and not isinstance(error, never_sent):
        raise MayHaveHappened(told) from error
    raise ToolError(told) from error


def refuse_too_many(answer: httpx2.Response, what: str) -> None:
    """Raises RetryLater for a 429, with the seconds of its Retry-After."""
    if answer.status_code != TOO_MANY:
        return
    wait = answer.headers.get("retry-after", "")
    seconds = float(wait) if wait.isascii() and wait.isdecimal() else LATER_SECONDS
    raise RetryLater(seconds, f"{what}: {TOO_MANY}, come back in {seconds:g} s")
