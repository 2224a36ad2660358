"""Where time and money go, over many runs: by agent, step, model, tool and wait."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pilothouse.domain.gaps import Facts
from pilothouse.domain.waterfall import PARTS, Span, Waterfall, waterfall

By = Literal["agent", "step", "model", "tool", "wait"]
GROUPS: tuple[By, ...] = ("agent", "step", "model", "tool", "wait")

MAX_LINES = 5000
"""Of one group. What comes beyond is told together."""

OTHERS = "(others)"
_NUMBER = re.compile(r"\d+")
_WAITS = ("queue", "wait", "approval")
_BAD = frozenset({"failed", "lost"})


@dataclass(slots=True)
class Line:
    """What one agent, step, model, tool or wait has taken together. Times in microseconds."""

    count: int = 0
    failed: int = 0
    us: int = 0
    longest_us: int = 0
    longest_run: str = ""
    microusd: int = 0
    tokens: int = 0

    def add(self, run_id: str, us: int, *, failed: bool, microusd: int = 0, tokens: int = 0) -> None:
        self.count += 1
        self.failed += failed
        self.us += us
        self.microusd += microusd
        self.tokens += tokens
        if us >= self.longest_us:
            self.longest_us, self.longest_run = us, run_id

    @property
    def mean_us(self) -> int:
        return self.us // self.count if self.count else 0


@dataclass(slots=True)
class Profile:
    """The sums so far; runs are added one by one and need not be kept."""

    runs: int = 0
    us: int = 0
    microusd: int = 0
    tokens: int = 0
    where_time_went: Counter[str] = field(default_factory=Counter)
    lines: dict[By, dict[str, Line]] = field(default_factory=lambda: {by: {} for by in GROUPS})

    def add(self, facts: Facts) -> None:
        """Adds one run."""
        found, run = waterfall(facts), facts.run
        cost = found.cost
        self.runs += 1
        self.us += found.total_us
        self.microusd += cost["microusd"]
        self.tokens += cost["tokens"]
        self.where_time_went.update(found.where_time_went)
        told = {"microusd": cost["microusd"], "tokens": cost["tokens"]}
        self._line("agent", run["agent"]).add(run["id"], found.total_us, failed=run["state"] == "failed", **told)
        self._add_calls(facts)
        self._add_spans(facts, found)

    def _add_calls(self, facts: Facts) -> None:
        run_id = facts.run["id"]
        for call in facts.model_calls:
            if call["outcome"] == "skipped":
                continue
            tokens = sum(call[name] for name in _TOKENS)
            failed, took = call["outcome"] == "failed", call["latency_us"]
            line = self._line("model", call["model"])
            line.add(run_id, took, failed=failed, microusd=call["cost_microusd"], tokens=tokens)
        for call in facts.tool_calls:
            failed, took = call["outcome"] == "failed", call["latency_us"]
            self._line("tool", call["tool"]).add(run_id, took, failed=failed, microusd=call["cost_microusd"])

    def _add_spans(self, facts: Facts, found: Waterfall) -> None:
        agent, run_id = facts.run["agent"], facts.run["id"]
        for span in found.spans:
            took = (span.ended_at if span.ended_at is not None else max(facts.now, span.started_at)) - span.started_at
            if span.kind in ("step", "model", "tool") and not _is_call(span, found):
                line = self._line("step", f"{agent} {step_name(span.name)}")
                line.add(run_id, took, failed=span.state in _BAD, microusd=span.cost_microusd, tokens=span.tokens)
            elif span.kind in _WAITS and span.depth == 0:
                name = "approval" if span.kind == "approval" else step_name(span.name)
                self._line("wait", f"{agent} {name}").add(run_id, took, failed=False)

    def _line(self, by: By, name: str) -> Line:
        lines = self.lines[by]
        if name not in lines and len(lines) >= MAX_LINES:
            name = OTHERS
        return lines.setdefault(name, Line())

    def public(self, groups: Iterable[By] = GROUPS) -> dict[str, Any]:
        """The sums as users see them, what took longest first."""
        return {
            "runs": self.runs,
            "us": self.us,
            "microusd": self.microusd,
            "tokens": self.tokens,
            "where_time_went": {part: self.where_time_went[part] for part in PARTS if self.where_time_went[part]},
            **{f"by_{by}": _sorted(self.lines[by], by) for by in groups},
        }


_TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def step_name(key: str) -> str:
    """A step's key without its numbers: `item-17` and `item-18` are one line, `item-N`."""
    return _NUMBER.sub("N", key)


def _is_call(span: Span, found: Waterfall) -> bool:
    """Whether it is one of several questions that a step has asked; the step itself is told."""
    return span.parent is not None and found.spans[span.parent].kind == span.kind == "model"


def _sorted(lines: Mapping[str, Line], by: By) -> list[dict[str, Any]]:
    ordered = sorted(lines.items(), key=lambda pair: (-pair[1].us, pair[0]))
    return [
        {
            by: name,
            "count": line.count,
            "failed": line.failed,
            "us": line.us,
            "mean_us": line.mean_us,
            "longest_us": line.longest_us,
            "longest_run": line.longest_run,
            "microusd": line.microusd,
            "tokens": line.tokens,
        }
        for name, line in ordered
    ]
