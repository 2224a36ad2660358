"""Traces: which one a run belongs to, and the ids of its spans, so that all processes name them alike without asking.

A trace is a run and everything it starts. Its id is that of the first run, a UUIDv7 without the dashes, unless the
submitter gave a `traceparent` header (W3C Trace Context, level 1).
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, Protocol

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_INVALID_VERSION = "ff"
_FIRST_VERSION = "00"
_SAMPLED = 1
_RANDOM_BITS = 56
"""The last bits of a trace id are random in every way of making one, so that a share of them is a fair sample."""


class Parent(NamedTuple):
    """What a `traceparent` says: ids in hexadecimal, and whether the caller records the trace."""

    trace_id: str
    span_id: str
    is_sampled: bool


class Traced(Protocol):
    """A run, as far as its trace depends on it."""

    @property
    def run_id(self) -> str: ...
    @property
    def root_id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def traceparent(self) -> str | None: ...


class Trace(NamedTuple):
    """The trace of one run. `parent` is the span above that of the run, None where there is none."""

    id: str
    parent: str | None
    is_sampled: bool


def parse_traceparent(text: str | None) -> Parent | None:
    """What the header says; None for one that is missing or not valid, which the standard says to ignore."""
    match = _TRACEPARENT.fullmatch(text.strip()) if text else None
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    has_more = len(match.group()) > len("00-") + 32 + 1 + 16 + 3
    if version == _INVALID_VERSION or (version == _FIRST_VERSION and has_more):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(trace_id: str, span_id: str, *, is_sampled: bool) -> str:
    return f"00-{trace_id}-{span_id}-{'01' if is_sampled else '00'}"


def trace_of(run: Traced, share: float) -> Trace:
    """The trace of a run; `share`, 0 to 1, of those that no submitter has decided on are recorded."""
    given = parse_traceparent(run.traceparent)
    if given is None:
        trace_id = run.root_id.replace("-", "")
        above = None if run.parent_id is None else span_of_run(run.parent_id)
        return Trace(trace_id, above, is_in_sample(trace_id, share))
    above = given.span_id if run.parent_id is None else span_of_run(run.parent_id)
    return Trace(given.trace_id, above, given.is_sampled and share > 0)


def trace_id_of(root_id: str, traceparent: str | None) -> str:
    """The id alone, for people."""
    given = parse_traceparent(traceparent)
    return root_id.replace("-", "") if given is None else given.trace_id


def is_in_sample(trace_id: str, share: float) -> bool:
    """The same for every process that asks, and for every run of the trace."""
    return share >= 1 or int(trace_id, 16) % (1 << _RANDOM_BITS) < share * (1 << _RANDOM_BITS)


def span_of_run(run_id: str) -> str:
    """The id of the span that is the whole run."""
    return _span_id(run_id)


def span_of_attempt(run_id: str, attempt: int) -> str:
    return _span_id(f"{run_id}.{attempt}")


def span_of_step(run_id: str, attempt: int, key: str) -> str:
    return _span_id(f"{run_id}.{attempt}/{key}")


def _span_id(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
