"""What a key of one tenant is told of limits that the tenant shares with others: that there is no room, not how much
all of them have spent. Every answer to such a key passes through here, so a new route needs no thought of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Scope, Send

from pilothouse.domain.budgets import hide_shared

TEXTS = ("application/json", "application/problem+json", "text/")


def unpacked(scope: Scope) -> Scope:
    """The request as one that wants its answer as it is, which can be looked through."""
    return {**scope, "headers": [each for each in scope["headers"] if each[0] != b"accept-encoding"]}


class OwnFigures:
    """Sends what it is given, without the figures of others."""

    def __init__(self, send: Send, tenant: str) -> None:
        self._send = send
        self._tenant = tenant
        self._start: Message | None = None
        self._is_text = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message  # its length is known with the body
        elif message["type"] == "http.response.body":
            await self._pass_on(message)
        else:
            await self._send(message)

    async def _pass_on(self, message: Mapping[str, Any]) -> None:
        body = message.get("body", b"")
        start, self._start = self._start, None
        if start is not None:
            self._is_text = Headers(raw=start["headers"]).get("content-type", "").startswith(TEXTS)
        told = hide_shared(body.decode("utf-8", "surrogateescape"), self._tenant) if self._is_text else ""
        sent = told.encode("utf-8", "surrogateescape") if self._is_text else body
        if start is not None:
            headers = MutableHeaders(raw=start["headers"])
            if "content-length" in headers and sent != body:
                headers["content-length"] = str(len(sent))
            await self._send(start)
        await self._send({**message, "body": sent})
