"""Traces: a sink that keeps what each attempt tells, and has it written as spans and sent on threads of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pilothouse.domain.traces import trace_of
from pilothouse.telemetry.courier import Courier, Destination, Terms
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import RunClaimed, RunDropped, RunSettled
from pilothouse.telemetry.http import Line
from pilothouse.telemetry.otlp import HEADERS, Encoder
from pilothouse.telemetry.spans import PARTS, AttemptStory, spans_of

WHAT = "spans"
MAX_PARTS = 1_000
"""Events of one attempt that become spans; those after them do not."""

STORIES = Terms(limit=20_000, batch=50, cpu_share=0.02)
"""Enough for some 800 attempts a second in a busy process, 4,000 in another; more wait, and the oldest are dropped."""

REQUESTS = Terms(limit=400, batch=10)
"""Of requests that are written already, each with the spans of a batch of stories."""


class Written(NamedTuple):
    """A request that is ready to be sent, and how many spans are in it."""

    body: bytes
    spans: int


@dataclass(frozen=True, slots=True)
class TraceServer:
    """Where spans go: the URL, and the path below it. `headers` are asked for with each request, since they may not be
    known at the start.
    """

    url: str
    destination: Destination
    path: str = ""
    headers: Callable[[], dict[str, str]] = field(default=dict)


class Traces:
    """The sink. `share` of the traces that no submitter has decided on are recorded."""

    def __init__(
        self, servers: Sequence[TraceServer], encoder: Encoder, share: float, destination: Destination
    ) -> None:
        self._share = share
        self._encoder = encoder
        self._open: dict[str, tuple[RunClaimed, list[Event]]] = {}
        self._senders = [_sender(server) for server in servers]
        self._writer: Courier[AttemptStory] = Courier(WHAT, destination, self._write, STORIES)

    def __call__(self, event: Event) -> None:
        kind = type(event)
        if kind is RunClaimed:
            self._begin(event)  # type: ignore[arg-type]  # its type was just looked at
        elif kind in PARTS:
            begun = self._open.get(event.run_id)  # type: ignore[attr-defined]  # each of these has it
            if begun is not None and len(begun[1]) < MAX_PARTS:
                begun[1].append(event)
        elif isinstance(event, (RunSettled, RunDropped)):
            begun = self._open.pop(event.run_id, None)
            if begun is not None:
                self._writer.offer(AttemptStory(*begun, event))

    def close(self) -> list[Courier[Written]]:
        """Has everything written; what is returned sends it, and is to be closed too."""
        self._writer.close()
        return self._senders

    def _begin(self, claimed: RunClaimed) -> None:
        is_plain = self._share >= 1 and claimed.traceparent is None
        if is_plain or trace_of(claimed, self._share).is_sampled:
            self._open[claimed.run_id] = (claimed, [])

    def _write(self, stories: Sequence[AttemptStory]) -> None:
        spans = [span for story in stories for span in spans_of(story, self._share)]
        written = Written(self._encoder.encode(spans), len(spans))
        for sender in self._senders:
            sender.offer(written)


def _sender(server: TraceServer) -> Courier[Written]:
    line = Line(server.url)

    def send(requests: Sequence[Written]) -> None:
        body = b"".join([request.body for request in requests])  # protobuf's messages may be joined
        line.send(server.path, body, {**HEADERS, **server.headers()})

    courier: Courier[Written] = Courier(WHAT, server.destination, send, REQUESTS)
    courier.hang_up = line.close
    courier.weigh = lambda request: request.spans
    return courier
