"""Metrics as Prometheus text, made of the counters that every process keeps in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OPEN_STATES = ("queued", "waiting", "running")
LIVE_STATES = ("running", "draining")


class Queue(Protocol):
    """The figures of one agent in one lane. `duration_buckets` counts ended runs by the upper bound of their bucket."""

    @property
    def agent(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def runs(self) -> Mapping[str, int]: ...
    @property
    def attempts(self) -> Mapping[str, int]: ...
    @property
    def pruned(self) -> Mapping[str, int]: ...
    @property
    def oldest_age_seconds(self) -> float: ...
    @property
    def duration_buckets(self) -> Mapping[str, int]: ...
    @property
    def duration_seconds_sum(self) -> float: ...


def render_metrics(queues: Sequence[Queue], workers: Mapping[str, int], bounds_seconds: Sequence[float]) -> bytes:
    """The text that Prometheus scrapes. `workers` counts them by state; `bounds_seconds` are those of the histogram."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(queues, workers, bounds_seconds))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)  # the registry keeps it in a set, by identity
class _Figures(Collector):
    queues: Sequence[Queue]
    workers: Mapping[str, int]
    bounds_seconds: Sequence[float]

    def collect(self) -> Iterator[Metric]:
        yield from _agent_metrics(self.queues, self.bounds_seconds)
        yield from _queue_metrics(self.queues)
        yield _attempts(self.queues)
        yield _workers(self.workers)


def _agent_metrics(queues: Sequence[Queue], bounds_seconds: Sequence[float]) -> Iterator[Metric]:
    tasks = CounterMetricFamily("agent_tasks", "Runs that have ended, by how.", labels=["agent_name", "status"])
    durations = HistogramMetricFamily(
        "agent_task_duration_seconds", "From a run's first claim to its end.", labels=["agent_name"]
    )
    sizes = GaugeMetricFamily("agent_queue_size", "Runs that are queued.", labels=["agent_name"])
    for agent in sorted({queue.agent for queue in queues}):
        own = [queue for queue in queues if queue.agent == agent]
        for status, count in _ended(own).items():
            tasks.add_metric([agent, status], count)
        buckets = _cumulated(_sum(queue.duration_buckets for queue in own), bounds_seconds)
        durations.add_metric([agent], buckets, sum(queue.duration_seconds_sum for queue in own))
        sizes.add_metric([agent], sum(queue.runs.get("queued", 0) for queue in own))
    yield from (tasks, durations, sizes)


def _ended(queues: Sequence[Queue]) -> dict[str, int]:
    """How often runs ended, and how. A redrive takes a run out of the failed ones, but must not turn a counter back:
    each end that is not a cancel was timed, so those that did not succeed had failed."""
    timed = sum(sum(queue.duration_buckets.values()) for queue in queues)
    succeeded = sum(queue.attempts.get("succeeded", 0) for queue in queues)
    cancelled = sum(queue.runs.get("cancelled", 0) + queue.pruned.get("cancelled", 0) for queue in queues)
    return {"succeeded": succeeded, "failed": timed - succeeded, "cancelled": cancelled}


def _cumulated(counts: Mapping[str, int], bounds_seconds: Sequence[float]) -> list[tuple[str, float]]:
    labels = [*map(str, bounds_seconds), "+Inf"]
    return list(zip(labels, accumulate(counts.get(label, 0) for label in labels), strict=True))


def _queue_metrics(queues: Sequence[Queue]) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "pilothouse_queue_depth", "Runs that have not ended, by state.", labels=["agent", "lane", "state"]
    )
    age = GaugeMetricFamily(
        "pilothouse_queue_oldest_age_seconds", "How long the head of the queue has been due.", labels=["agent", "lane"]
    )
    for queue in queues:
        for state in OPEN_STATES:
            depth.add_metric([queue.agent, queue.lane, state], queue.runs.get(state, 0))
        age.add_metric([queue.agent, queue.lane], queue.oldest_age_seconds)
    yield from (depth, age)


def _attempts(queues: Sequence[Queue]) -> Metric:
    attempts = CounterMetricFamily(
        "pilothouse_attempts", "Attempts that have ended, by outcome.", labels=["agent", "lane", "outcome"]
    )
    for queue in queues:
        for outcome, count in sorted(queue.attempts.items()):
            attempts.add_metric([queue.agent, queue.lane, outcome], count)
    return attempts


def _workers(workers: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily("pilothouse_workers", "Workers that hold a lease, by state.", labels=["state"])
    for state in LIVE_STATES:
        family.add_metric([state], workers.get(state, 0))
    return family


def _sum(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
