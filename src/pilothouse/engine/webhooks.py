"""The delivery agent: POSTs a run that has ended to its URL, signed as in the Standard Webhooks specification 1.0.

Headers `webhook-id` (the same for every attempt, so that a receiver can tell a repetition), `webhook-timestamp` and
`webhook-signature`: v1, a comma, and base64 of HMAC-SHA256 over "id.timestamp.body" with the shared secret.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from pilothouse import __version__, payloads
from pilothouse.control import runs
from pilothouse.control.views import run_view
from pilothouse.domain.lanes import Lane
from pilothouse.domain.retries import Backoff
from pilothouse.engine.agent import Agent, AgentOptions, make_agent
from pilothouse.engine.context import Context
from pilothouse.errors import ConfigError, FatalError, NotFound, RunError
from pilothouse.store.database import Database
from pilothouse.telemetry import tracing

if TYPE_CHECKING:
    import httpx2

TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS = 10
BACKOFF = Backoff(first_seconds=5.0, limit_seconds=3600.0)
ANSWER_SHOWN = 200
GONE = 410
WRITTEN_AS = "whsec_"


def make_delivery_agent(db: Database, secret: str) -> Agent:
    """The agent that workers run beside those of their App, once they know a secret to sign with."""

    _key(secret)  # a wrong one is told at the start

    async def deliver(ctx: Context, run: str, url: str) -> dict[str, Any]:
        """Tells a URL that a run has ended."""
        try:
            ended = run_view(await runs.get_run(db, run))
        except NotFound as error:
            raise FatalError(f"run {run} is not there any more") from error
        body = payloads.encode({"type": f"run.{ended['state']}", "timestamp": ended["finished_at"], "data": ended})
        timestamp = int(ctx.now().timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": f"pilothouse/{__version__}",
            "webhook-id": ctx.run_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, ctx.run_id, timestamp, body),
            **tracing.headers_of_run(ended["id"], ended["trace_id"]),
        }
        return {"answered": await _post(url, body, headers)}

    options = AgentOptions(
        lane=Lane.NORMAL,
        max_attempts=MAX_ATTEMPTS,
        timeout_seconds=2 * TIMEOUT_SECONDS,
        backoff=BACKOFF,
        description="Tells a URL that a run has ended.",
    )
    return make_agent(runs.DELIVERY_AGENT, deliver, options)


def sign(secret: str, id: str, timestamp: int, body: str) -> str:
    """The signature of one delivery; `timestamp` in seconds."""
    digest = hmac.new(_key(secret), f"{id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """The specification writes a key as `whsec_` and base64; anything else is taken as it stands."""
    if not secret.startswith(WRITTEN_AS):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(WRITTEN_AS), validate=True)
    except ValueError as error:
        raise ConfigError(f"setting webhook_secret starts with {WRITTEN_AS}, but is not base64 after it") from error


async def _post(url: str, body: str, headers: dict[str, str]) -> int:
    """The status of an answer that takes the delivery. Raises RunError for another one, FatalError for 410 Gone."""
    import httpx2

    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx2.AsyncClient(follow_redirects=False) as http,
            http.stream("POST", url, content=body.encode(), headers=headers) as answer,
        ):
            status = answer.status_code
            told = "" if answer.is_success else await _beginning(answer)
    except TimeoutError as error:
        raise RunError(f"the receiver did not answer within {TIMEOUT_SECONDS:g} s") from error
    except httpx2.HTTPError as error:
        raise RunError(f"{type(error).__name__}: {error}") from error
    if status == GONE:
        raise FatalError("the receiver answered 410: it wants no more of these")
    if not answer.is_success:
        raise RunError(f"the receiver answered {status}: {told}")
    return status


async def _beginning(answer: httpx2.Response) -> str:
    """As much of an answer as is shown; its rest is not read, however long it is."""
    text = ""
    async for part in answer.aiter_text():
        text += part
        if len(text) >= ANSWER_SHOWN:
            break
    return text[:ANSWER_SHOWN]
