"""Local servers that messages are sent to: a mailbox that speaks SMTP, and one that takes webhooks and Telegram's."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.patience import WAIT_SECONDS


@dataclass
class Post:
    """What arrived. `failures` is how many requests are turned away first; `keys` are those that requests came with.

    While `answers` is not set, requests are taken and not answered.
    """

    mails: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    failures: int = 0
    answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs to deliver."""

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text.decode())
                self.server.post.mails.append("".join(lines))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


class Hooks(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        post: Post = self.server.post  # type: ignore[attr-defined]
        data = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if post.failures:
            post.failures -= 1
            self.send_response(503)
        else:
            post.keys.append(self.headers["Idempotency-Key"])
            post.requests.append((self.path, data))
            post.answers.wait(WAIT_SECONDS)
            self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def serving(server: Any, post: Post) -> Iterator[int]:
    server.post = post
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()
