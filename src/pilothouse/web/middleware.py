"""What surrounds every request: unusable addresses are refused, failures answered and logged, requests logged."""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilothouse.clock import SystemClock, new_id
from pilothouse.telemetry.logs import get_logger
from pilothouse.web.problems import Problem

_log = get_logger(__name__)
_clock = SystemClock()


class Failures:
    """Answers 500 for whatever nobody foresaw: the caller gets an id, the log has that id and the traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except ClientDisconnect:
            _log.debug("http.disconnected", path=scope["path"])
        except Exception:
            error_id = new_id()
            _log.exception("http.failed", error_id=error_id, method=scope["method"], path=scope["path"])
            if started:
                raise  # half an answer is out: the server must cut the connection
            await _failure(error_id).response(scope["path"])(scope, receive, send)


def _failure(error_id: str) -> Problem:
    detail = f"something went wrong on our side; the log of the API has the reason under error_id {error_id}"
    return Problem(500, "internal_error", detail, error_id=error_id)


class RequestLog:
    """One line per request at debug."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _log.is_enabled_for(logging.DEBUG):
            await self._app(scope, receive, send)
            return
        status = 0
        began = _clock.monotonic()

        async def note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            took = round((_clock.monotonic() - began) * 1000, 3)
            _log.debug("http.request", method=scope["method"], path=scope["path"], status=status, duration_ms=took)


class UsableAddresses:
    """Refuses the character NUL in an address: no database can look for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            problem = Problem(HTTPStatus.BAD_REQUEST, "bad_address", "the address holds the character NUL (%00)")
            await problem.response(scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)
