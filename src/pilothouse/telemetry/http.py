"""HTTP for couriers, made of the standard library's: a client that logs its requests would feed its own log."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from pilothouse import __version__
from pilothouse.telemetry.courier import Refused, TooLarge, Undelivered

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
MAX_ANSWER = 1 << 20
ANSWER_SHOWN = 200
TOO_LARGE = 413
AGAIN = frozenset({408, 425, 429})


class Line:
    """A connection to one server that is kept open. Not for several threads at once.

    `url` may have a user and a password, which are sent as basic authentication.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._parts = urlsplit(url)
        self._headers = {"user-agent": f"pilothouse/{__version__}", **_authorization(url), **(headers or {})}
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        known: tuple[int, ...] = (),
    ) -> tuple[int, bytes]:
        """The status and the body of an answer that is good, or in `known`.

        Raises Undelivered where trying again may help, Refused and TooLarge where it does not.
        """
        sent = {**self._headers, **(headers or {})}
        target = f"{self._parts.path.rstrip('/')}{path}" or "/"
        try:
            status, answer = self._exchange(method, target, body, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Undelivered(f"{type(error).__name__}: {error}") from error
        if 200 <= status < 300 or status in known:
            return status, answer
        told = f"it answered {status}: {' '.join(answer.decode(errors='replace').split())[:ANSWER_SHOWN]}"
        if status == TOO_LARGE:
            raise TooLarge(told)
        if status in AGAIN or status >= 500:
            raise Undelivered(told)
        raise Refused(told)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """On a connection that was kept open, the server may have hung up meanwhile; then a new one is made."""
        was_open = self._connection is not None
        try:
            return self._once(method, target, body, headers)
        except (ConnectionError, http.client.BadStatusLine):
            self.close()
            if not was_open:
                raise
            return self._once(method, target, body, headers)

    def _once(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request(method, target, body, headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_ANSWER)
        if not response.isclosed():
            self.close()  # a longer answer than anybody wants
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_SECONDS, context=context
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        made.connect()
        made.sock.settimeout(ANSWER_SECONDS)
        return made


def _authorization(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
