"""Metrics as Prometheus text, made of figures that are named in the catalogue."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from pilothouse.telemetry.catalogue import CATALOGUE, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One figure, with the values of the metric's labels in their order."""

    labels: tuple[str, ...]
    value: float


class Timed(NamedTuple):
    """How long things took: how many there are by the upper bound of their bucket, not cumulated; and the sum."""

    labels: tuple[str, ...]
    buckets: Mapping[str, int]
    seconds_sum: float


Figures: TypeAlias = Mapping[str, Sequence[Sample | Timed]]
"""Figures by the name of their metric."""


def render_metrics(figures: Figures, bounds_seconds: Sequence[float]) -> bytes:
    """The text that Prometheus scrapes; the figures of this process come with it.

    `bounds_seconds` are those of the histograms. A bucket of other bounds, from an older version, is counted in the
    next larger one that there is. Raises LookupError for a figure that is not in the catalogue.
    """
    unknown = figures.keys() - {metric.name for metric in CATALOGUE}
    if unknown:
        raise LookupError(f"not in telemetry.catalogue: {', '.join(sorted(unknown))}")
    lines = [line for metric in CATALOGUE for line in _lines(metric, figures.get(metric.name, ()), bounds_seconds)]
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return "\n".join([*lines, ""]).encode() + generate_latest(registry)


# Written by hand: prometheus_client, which the tests hold it against, validates each name of each line anew.


def _lines(metric: Metric, figures: Sequence[Sample | Timed], bounds_seconds: Sequence[float]) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for each in figures:
        named = sorted(zip(metric.labels, each.labels, strict=True))
        labels = [f'{name}="{_escaped(value)}"' for name, value in named]
        if isinstance(each, Sample):
            yield f"{metric.name}{_braced(labels)} {float(each.value)!r}"
            continue
        counts = _cumulated(each.buckets, bounds_seconds)
        for bound, count in counts:
            within = _braced([*labels, f'le="{bound}"'])
            yield f"{metric.name}_bucket{within} {float(count)!r}"
        yield f"{metric.name}_count{_braced(labels)} {float(counts[-1][1])!r}"
        yield f"{metric.name}_sum{_braced(labels)} {float(each.seconds_sum)!r}"


def _braced(labels: Sequence[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _cumulated(counts: Mapping[str, int], bounds_seconds: Sequence[float]) -> list[tuple[str, int]]:
    """How many took at most each of the bounds, the last of which is none."""
    found = [0] * (len(bounds_seconds) + 1)
    for name, count in counts.items():
        found[bisect_left(bounds_seconds, float(name))] += count
    return list(zip([*map(str, bounds_seconds), "+Inf"], accumulate(found), strict=True))
