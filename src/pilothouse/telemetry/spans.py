"""Spans out of events: what one attempt of a run told, put into its trace after it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pilothouse.domain.runs import TERMINAL
from pilothouse.domain.traces import Trace, span_of_attempt, span_of_run, span_of_step, trace_of
from pilothouse.telemetry import conventions as names
from pilothouse.telemetry.conventions import Attribute, Kind, Span
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import (
    ApprovalAnswered,
    ModelAnswered,
    ModelFailed,
    RunClaimed,
    RunDropped,
    RunResumed,
    RunSettled,
    StepExecuted,
    StepFailed,
    ToolCalled,
)

TOOL_KIND = "tool"
CONTENT_SHOWN = 16_384
"""Characters of a prompt, an answer or arguments that go into a span."""


class AttemptStory(NamedTuple):
    """All that was told of one attempt, in its order; `end` is None where its worker has lost it."""

    claimed: RunClaimed
    parts: Sequence[Event]
    end: RunSettled | RunDropped


PARTS = frozenset({RunResumed, StepExecuted, StepFailed, ModelAnswered, ModelFailed, ToolCalled, ApprovalAnswered})
"""The events that become spans of an attempt."""


def spans_of(story: AttemptStory, share: float) -> list[Span]:
    """The spans of an attempt; with its last one also that of the whole run. `share` as in `trace_of`."""
    claimed, end = story.claimed, story.end
    teller = _Teller(claimed, trace_of(claimed, share), _keys(story.parts))
    spans = [teller.waiting(story.parts)]
    for part in story.parts:
        spans += teller.part(part)
    if isinstance(end, RunSettled):
        spans.append(teller.attempt(end))
        if end.state in TERMINAL:
            spans.append(teller.run(end))
    return spans


def _keys(parts: Sequence[Event]) -> frozenset[str]:
    """The steps that have a span of their own."""
    return frozenset(part.step for part in parts if isinstance(part, (StepExecuted, StepFailed, ToolCalled)))


class _Teller:
    """Makes the spans of one attempt."""

    def __init__(self, claimed: RunClaimed, trace: Trace, keys: frozenset[str]) -> None:
        self._claimed, self._trace, self._keys = claimed, trace, keys
        self._run_span = span_of_run(claimed.run_id)
        self._attempt = span_of_attempt(claimed.run_id, claimed.attempt)
        self._used: set[str] = set()

    # --- the run and its attempt -----------------------------------------------------------

    def run(self, end: RunSettled) -> Span:
        claimed = self._claimed
        return Span(
            f"{names.INVOKE_AGENT} {claimed.agent}",
            Kind.CONSUMER,
            self._trace.id,
            self._run_span,
            self._trace.parent,
            claimed.created_at,
            end.settled_at,
            {
                names.OPERATION: names.INVOKE_AGENT,
                names.AGENT: claimed.agent,
                names.CONVERSATION: claimed.root_id,
                names.RUN: claimed.run_id,
                names.TENANT: claimed.tenant,
                names.LANE: claimed.lane,
                names.VERSION: claimed.version,
                names.STATE: end.state,
                names.ATTEMPT: claimed.attempt,
            },
            end.error if end.state == "failed" else None,
        )

    def attempt(self, end: RunSettled) -> Span:
        claimed, times = self._claimed, (self._claimed.claimed_at, end.settled_at)
        attributes = {names.RUN: claimed.run_id, names.WORKER: claimed.worker_id, names.ENDING: end.ending}
        span = self._span(f"attempt {claimed.attempt}", self._attempt, self._run_span, times, attributes)
        return span._replace(error=end.error)

    def waiting(self, parts: Sequence[Event]) -> Span:
        """Before the first attempt in the queue, before a later one also for what the run slept for."""
        claimed = self._claimed
        before = next((part for part in parts if isinstance(part, RunResumed)), None)
        if before is None:
            return self._wait_span("queued", claimed.created_at, {})
        return self._wait_span("waiting", before.left_at, {names.WAITED_AFTER: before.left_as})

    def _wait_span(self, name: str, since: int, attributes: Mapping[str, Attribute]) -> Span:
        claimed = self._claimed
        times = (min(since, claimed.claimed_at), claimed.claimed_at)
        return self._span(name, self._id(f"#{name}"), self._run_span, times, attributes)

    # --- what happened in it ---------------------------------------------------------------

    def part(self, event: Event) -> Iterator[Span]:
        match event:
            case StepExecuted() | StepFailed() if event.kind != TOOL_KIND:
                yield self._step(event)
            case ModelAnswered() | ModelFailed():
                yield self._model(event)
            case ToolCalled():
                yield self._tool(event)
            case ApprovalAnswered():
                yield self._approval(event)

    def _step(self, event: StepExecuted | StepFailed) -> Span:
        attributes: dict[str, Attribute] = {
            names.STEP: event.step,
            names.STEP_KIND: event.kind,
            names.TRIES: event.tries,
        }
        times = (event.started_at, event.started_at + event.duration_us)
        error = event.error if isinstance(event, StepFailed) else None
        span = self._span(_short(event.step), self._id(event.step), self._above(event.step), times, attributes)
        return span._replace(error=error)

    def _model(self, event: ModelAnswered | ModelFailed) -> Span:
        provider, model = names.provider_of(event.model)
        attributes: dict[str, Attribute] = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: provider,
            names.REQUEST_MODEL: model,
            names.AGENT: event.agent,
            names.ROUTE: event.route,
            names.STEP: event.step,
        }
        error = None
        if isinstance(event, ModelAnswered):
            attributes |= {
                names.RESPONSE_MODEL: model,
                names.INPUT_TOKENS: event.tokens_in,
                names.OUTPUT_TOKENS: event.tokens_out,
                names.COST: event.cost_microusd / 1_000_000,
                **_content({names.INPUT_MESSAGES: event.prompt, names.OUTPUT_MESSAGES: event.answer}),
            }
        else:
            error = event.reason
        times = (event.started_at, event.started_at + int(event.latency_ms * 1000))
        name = f"{names.CHAT} {model}"
        span = self._span(name, self._id(event.step), self._above(event.step), times, attributes)
        return span._replace(kind=Kind.CLIENT, error=error)

    def _tool(self, event: ToolCalled) -> Span:
        attributes: dict[str, Attribute] = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL: event.tool,
            names.TOOL_TYPE: "function",
            names.CALLED_BY: event.called_by,
            names.EFFECT: str(event.effect),
            names.STEP: event.step,
            **_content({names.TOOL_ARGUMENTS: event.arguments}),
        }
        times = (event.started_at, event.started_at + int(event.latency_ms * 1000))
        name = f"{names.EXECUTE_TOOL} {event.tool}"
        span = self._span(name, self._id(event.step), self._above(event.step), times, attributes)
        return span._replace(error=None if event.outcome == "succeeded" else event.outcome)

    def _approval(self, event: ApprovalAnswered) -> Span:
        attributes = {
            names.APPROVAL: event.approval_id,
            names.STATE: event.state,
            names.DECIDED_BY: event.decided_by or "",
            names.STEP: event.step,
        }
        # People are asked in one attempt and have decided before a later one, so it belongs to the run.
        times = (event.asked_at, event.decided_at)
        return self._span(
            f"approval {event.action}", self._id(f"{event.step}#approval"), self._run_span, times, attributes
        )

    # --- ids -------------------------------------------------------------------------------

    def _span(
        self, name: str, span_id: str, parent: str, times: tuple[int, int], attributes: Mapping[str, Attribute]
    ) -> Span:
        return Span(name, Kind.INTERNAL, self._trace.id, span_id, parent, *times, attributes)

    def _id(self, key: str) -> str:
        """Of the step of this key; a model that was asked again, or in vain before, has a number at the end."""
        claimed, number, unused = self._claimed, 1, key
        while unused in self._used:
            number += 1
            unused = f"{key}#{number}"
        self._used.add(unused)
        return span_of_step(claimed.run_id, claimed.attempt, unused)

    def _above(self, key: str) -> str:
        """The closest step around this one that has a span, else the attempt."""
        claimed = self._claimed
        while "/" in key:
            key = key.rpartition("/")[0]
            if key in self._keys:
                return span_of_step(claimed.run_id, claimed.attempt, key)
        return self._attempt


def _short(key: str) -> str:
    """The name of a step without those around it."""
    return key.rpartition("/")[2] or key


def _content(texts: Mapping[str, str | None]) -> dict[str, Attribute]:
    return {name: text[:CONTENT_SHOWN] for name, text in texts.items() if text is not None}
