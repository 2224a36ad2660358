"""Where the code that runs now is in its trace, so that what it calls can be told: the `traceparent` header."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from pilothouse.domain.traces import (
    Traced,
    format_traceparent,
    parse_traceparent,
    span_of_attempt,
    span_of_run,
    span_of_step,
    trace_of,
)

HEADER = "traceparent"


class Attempted(Traced, Protocol):
    """A run, and the number of its attempt."""

    @property
    def attempt(self) -> int: ...


class Place(NamedTuple):
    """An attempt of a run in its trace, and the step that is under way. Ids are made when somebody asks for them."""

    run: Attempted
    share: float
    step: str = ""

    @property
    def is_passed_on(self) -> bool:
        """Nothing is, where nobody traces: neither these settings nor the run's submitter."""
        return self.share > 0 or self.run.traceparent is not None

    @property
    def trace_id(self) -> str:
        return trace_of(self.run, self.share).id

    @property
    def span_id(self) -> str:
        if self.step:
            return span_of_step(self.run.run_id, self.run.attempt, self.step)
        return span_of_attempt(self.run.run_id, self.run.attempt)

    def traceparent(self) -> str:
        trace = trace_of(self.run, self.share)
        given = parse_traceparent(self.run.traceparent)
        is_sampled = trace.is_sampled if given is None or self.share > 0 else given.is_sampled
        return format_traceparent(trace.id, self.span_id, is_sampled=is_sampled)


_place: ContextVar[Place | None] = ContextVar("pilothouse_trace", default=None)


def enter(run: Attempted, share: float) -> None:
    """From here on, this task and those that it starts work for an attempt; `share` of all traces are recorded."""
    place = Place(run, share)
    _place.set(place)
    opentelemetry = sys.modules.get("opentelemetry.trace") if share > 0 else None
    if opentelemetry is not None and not isinstance(
        opentelemetry.get_tracer_provider(), opentelemetry.ProxyTracerProvider
    ):
        _attach(place)


def current_place() -> Place | None:
    """Where the code is; None outside of runs."""
    return _place.get()


def headers(step: str = "") -> dict[str, str]:
    """What a request out of a step bears, so that whoever answers it can join the trace."""
    place = _place.get()
    if place is None or not place.is_passed_on:
        return {}
    return {HEADER: (place._replace(step=step) if step else place).traceparent()}


def headers_of_run(run_id: str, trace_id: str) -> dict[str, str]:
    """What a message about another run bears: the place of that run in its trace, where this one is traced too."""
    place = _place.get()
    if place is None or not place.is_passed_on:
        return {}
    return {HEADER: format_traceparent(trace_id, span_of_run(run_id), is_sampled=place.share > 0)}


def enter_step(step: str) -> None:
    """What this task asks for from here on, it asks for in a step."""
    place = _place.get()
    if place is not None and step:
        _place.set(place._replace(step=step))


def _attach(place: Place) -> None:
    """Spans that the handler's own code makes with OpenTelemetry, and somebody records, belong below the attempt."""
    from opentelemetry import context, trace

    flags = trace.TraceFlags(int(trace_of(place.run, place.share).is_sampled))
    above = trace.SpanContext(int(place.trace_id, 16), int(place.span_id, 16), True, flags)
    context.attach(trace.set_span_in_context(trace.NonRecordingSpan(above)))
