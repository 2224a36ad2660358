"""A server that telemetry is sent to: a strict one, or one that misbehaves in a way of its choice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

Manner = Literal["good", "hangs", "resets", "too small", "500", "400"]
SMALL = 2_000
"""Bytes that the server takes at once when it is too small."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Seen:
    """One span as a receiver reads it."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    seconds: float
    attributes: dict[str, Any]
    failed: bool
    kind: int
    service: str


@dataclass
class Receiver:
    """What has arrived. `arrived` is set with the first request, `release` lets those go that hang."""

    url: str = ""
    manner: Manner = "good"
    asked: list[Asked] = field(default_factory=list)
    taken: list[Asked] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> list[Seen]:
        return [span for each in self.taken if each.path.endswith("/v1/traces") for span in _spans(each.body)]


def _spans(body: bytes) -> list[Seen]:
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for group in request.resource_spans:
        resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
        found += [_seen(span, resource["service.name"]) for scope in group.scope_spans for span in scope.spans]
    return found


def _seen(span: WireSpan, service: str) -> Seen:
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert len(span.parent_span_id) in (0, 8)
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    attributes = {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}
    assert len(attributes) == len(span.attributes), "an attribute came twice"
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes,
        span.status.code == 2,
        span.kind,
        service,
    )


@contextmanager
def receiving(manner: Manner = "good") -> Iterator[Receiver]:
    receiver = Receiver(manner=manner)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.asked.append(asked)
            receiver.arrived.set()
            self._answer(asked)

        do_GET = do_POST

        def _answer(self, asked: Asked) -> None:
            match receiver.manner:
                case "hangs":
                    receiver.release.wait()
                    self.close_connection = True
                case "resets":
                    self.close_connection = True
                case "500" | "400":
                    self._say(int(receiver.manner))
                case "too small" if len(asked.body) > SMALL:
                    self._say(413)
                case _:
                    receiver.taken.append(asked)
                    self._say(200)

        def _say(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: what was asked is kept."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever sent it may be gone by now."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        yield receiver
    finally:
        receiver.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
