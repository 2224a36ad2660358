"""A server that answers as it was told, one answer per request, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    text: str

    @property
    def last_event_id(self) -> str | None:
        return self.headers.get("last-event-id")

    @property
    def body(self) -> Any:
        return json.loads(self.text) if self.text else None


class Script:
    """The answers that are left, and the requests so far."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.asked: list[Asked] = []
        self.url = ""


def problem(code: str, status: int, **headers: str) -> Answer:
    """A refusal in Pilothouse's own form."""
    return Answer(json.dumps({"code": code, "detail": f"this is {code}"}), status, headers)


def events(*lines: str) -> Answer:
    """A stream that ends, cleanly or not, after these lines."""
    return Answer("".join(f"{line}\n" for line in lines))


@contextmanager
def scripted(*answers: Answer) -> Iterator[Script]:
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append(Asked(self.command, self.path, headers, self.rfile.read(length).decode()))
            answer = script.answers.pop(0)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: what was asked is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        script.url = f"http://127.0.0.1:{server.server_port}"
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
