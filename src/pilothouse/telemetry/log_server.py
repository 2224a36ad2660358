"""A log server: lines go there in batches over HTTPS, as JSON lines, out of a bounded buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from pilothouse.config.sources import mask
from pilothouse.telemetry.courier import Courier, Destination, Terms
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.http import Line

WHAT = "log lines"
HEADERS = {"content-type": "application/x-ndjson"}
TERMS = Terms(limit=10_000, batch=500)


class LogServer:
    """An output for logs that never waits. `tell` must not log what it hears: it would come here again."""

    is_terminal = False

    def __init__(self, url: str, token: str | None, tell: Callable[[Event], None]) -> None:
        self._line = Line(url, HEADERS if token is None else {**HEADERS, "authorization": f"Bearer {token}"})
        query = urlsplit(url).query
        self._rest = f"?{query}" if query else ""
        self._courier: Courier[bytes] = Courier(WHAT, Destination(mask(url), tell), self._send, TERMS)
        self._courier.hang_up = self._line.close

    def write(self, line: bytes) -> None:
        self._courier.offer(line)

    def close(self) -> None:
        """Sends what is left, for at most two seconds."""
        self._courier.close()

    def _send(self, lines: Sequence[bytes]) -> None:
        self._line.send(self._rest, b"".join(lines))
