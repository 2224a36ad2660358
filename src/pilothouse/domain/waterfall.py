"""One run as spans on a line of time: waiting in the queue, attempts, steps, calls of models and tools, effects, waits.

The spans of depth 0 follow each other without a gap, from the submit to the run's end, or to now. So every microsecond
of a run is in exactly one part of `where_time_went`. What a span has cost holds what the spans below it have cost.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pilothouse.domain.gaps import Facts, Gap, GapPart, Row, gaps_of

SpanKind = Literal["queue", "attempt", "step", "model", "tool", "effect", "wait", "approval", "child"]
WorkPart = Literal["model", "tool", "step", "code"]
Part = GapPart | WorkPart
"""Where time goes. `hold`: a switch or a limit kept it back; `code`: the handler itself, between its steps."""

PARTS: tuple[Part, ...] = (
    "queue", "backoff", "people", "signal", "timer", "child", "hold", "model", "tool", "step", "code",
)  # fmt: skip

_SHOWN: Mapping[str, SpanKind] = {
    "step": "step", "graph": "step", "memory": "step", "context": "step", "model": "model", "tool": "tool",
    "approval": "approval",
}  # fmt: skip
"""The kinds of steps that are spans. The others only note something beside one, or are shown by what they wait for."""

_WORK: tuple[WorkPart, ...] = ("model", "tool", "step")
"""What an attempt does; of what is under way at once the first counts."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time. `ended_at` None: still under way. `parent` is the place of the span that it is in.

    `id` is what to link to: a child's run, an approval, an effect; of an attempt its worker.
    """

    kind: SpanKind
    name: str
    started_at: int
    ended_at: int | None
    state: str
    detail: str = ""
    attempt: int | None = None
    id: str | None = None
    cost_microusd: int = 0
    tokens: int = 0
    depth: int = 0
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Spans, parents before what is in them; microseconds by part, which add up to `total_us`."""

    started_at: int
    ended_at: int | None
    total_us: int
    spans: tuple[Span, ...]
    where_time_went: Mapping[Part, int]
    cost: Mapping[str, Any]


@dataclass(slots=True)
class _Node:
    span: Span
    below: list[_Node] = field(default_factory=list)


def waterfall(facts: Facts) -> Waterfall:
    """The run as it was, or as it is until now."""
    gaps = gaps_of(facts)
    tops = [_gap_node(gap) for gap in gaps]
    tops += [_attempt_node(facts, attempt) for attempt in facts.attempts]
    tops.sort(key=lambda node: (node.span.started_at, node.span.kind == "attempt", node.span.attempt or 0))
    where = _where(facts, gaps)
    return Waterfall(
        started_at=facts.run["created_at"],
        ended_at=facts.run["finished_at"],
        total_us=sum(where.values()),
        spans=tuple(_flat(tops)),
        where_time_went=where,
        cost=_cost(facts),
    )


# --- spans -----------------------------------------------------------------------------------------------


def _gap_node(gap: Gap) -> _Node:
    return _Node(
        Span(gap.kind, gap.name, gap.started_at, gap.ended_at, gap.state, detail=gap.detail, id=gap.id),
        [_Node(_approval(row)) for row in gap.others],
    )


def _approval(row: Row) -> Span:
    return Span("approval", row["title"], row["requested_at"], row["decided_at"], row["state"], id=row["id"])


def _attempt_node(facts: Facts, attempt: Row) -> _Node:
    number = attempt["number"]
    span = Span(
        "attempt", f"attempt {number}", attempt["started_at"], attempt["finished_at"], attempt["state"],
        detail=_told(attempt["error"]), attempt=number, id=attempt["worker_id"],
    )  # fmt: skip
    by_key = {node.span.name: node for node in _work_nodes(facts, number)}
    top = _Node(span)
    for key, node in by_key.items():
        _above(by_key, key, top).below.append(node)
    top.below += [_Node(_child(row)) for row in facts.children if _attempt_at(facts, row["created_at"]) == number]
    return top


def _above(by_key: Mapping[str, _Node], key: str, top: _Node) -> _Node:
    """The span that a step is in: a key names the steps around it, such as `draft/1.look`."""
    while "/" in key:
        key = key.rpartition("/")[0]
        if key in by_key:
            return by_key[key]
    return top


def _work_nodes(facts: Facts, number: int) -> Iterator[_Node]:
    """What an attempt did, by the key of its steps; calls whose step a later attempt has written again too."""
    calls = _by_key(row for row in facts.model_calls if row["attempt"] == number)
    tools = {row["key"]: row for row in facts.tool_calls if row["attempt"] == number}
    effects = {row["key"]: row for row in facts.effects if row["attempt"] == number}
    asked = {row["key"] for row in facts.approvals}
    steps = {row["key"]: row for row in facts.steps if row["attempt"] == number and row["kind"] in _SHOWN}
    for key in dict.fromkeys((*steps, *calls, *tools, *effects)):
        step = steps.get(key)
        if step is not None and step["kind"] == "approval" and key in asked:
            continue
        yield _work_node(key, step, calls.get(key, []), tools.get(key), effects.get(key))


def _work_node(key: str, step: Row | None, calls: Sequence[Row], tool: Row | None, effect: Row | None) -> _Node:
    below = [_Node(_model_call(row)) for row in calls] if len(calls) > 1 else []
    if tool is not None or effect is not None:
        node = _Node(_tool(key, step, tool, effect), below)
    elif calls:
        node = _Node(_model(key, step, calls), below)
    else:
        assert step is not None, "a key comes from a step, a call or an effect"
        node = _Node(_step(step), below)
    if effect is not None:
        node.below.append(_Node(_effect(effect)))
    return node


def _step(step: Row) -> Span:
    kind = _SHOWN[step["kind"]]
    state = "approved" if kind == "approval" else step["state"]
    tries = f"try {step['tries']}" if step["tries"] > 1 else ""
    detail = _told(step["error"]) or ("no rule asks a person" if kind == "approval" else tries)
    return Span(kind, step["key"], step["started_at"], step["finished_at"], state, detail, step["attempt"])


def _model(key: str, step: Row | None, calls: Sequence[Row]) -> Span:
    last = calls[-1]
    made = replace(_model_call(last), name=key, detail=_models(calls))
    if len(calls) > 1:
        made = replace(made, cost_microusd=0, tokens=0)  # those of the calls below it
    if step is None:
        return replace(made, started_at=calls[0]["started_at"])
    state = last["outcome"] if last["outcome"] == "cached" else step["state"]
    return replace(made, started_at=step["started_at"], ended_at=step["finished_at"], state=state)


def _models(calls: Sequence[Row]) -> str:
    """The model that has answered, and why others did not."""
    last = calls[-1]
    return f"{last['model']}: {last['reason']}" if last["reason"] else str(last["model"])


def _model_call(call: Row) -> Span:
    return Span(
        "model", call["model"], call["started_at"], call["started_at"] + call["latency_us"], call["outcome"],
        detail=call["reason"] or "", attempt=call["attempt"], cost_microusd=call["cost_microusd"], tokens=_tokens(call),
    )  # fmt: skip


def _tool(key: str, step: Row | None, call: Row | None, effect: Row | None) -> Span:
    source = call or effect
    assert source is not None, "a tool has made a call, or has said that it is about to"
    cost = call["cost_microusd"] if call is not None else 0
    made = Span("tool", key, 0, None, "", source["tool"], source["attempt"], cost_microusd=cost)
    if step is not None:
        return replace(made, started_at=step["started_at"], ended_at=step["finished_at"], state=step["state"])
    if call is not None:
        began = call["started_at"]
        return replace(made, started_at=began, ended_at=began + call["latency_us"], state=call["outcome"])
    state = _effect_state(source)
    return replace(made, started_at=source["intended_at"], ended_at=source["finished_at"], state=state)


def _effect(effect: Row) -> Span:
    return Span(
        "effect", effect["tool"], effect["intended_at"], effect["finished_at"], _effect_state(effect),
        detail=effect["effect"], attempt=effect["attempt"], id=effect["id"],
    )  # fmt: skip


def _effect_state(effect: Row) -> str:
    """An intended one whose attempt has ended is unknown."""
    return "unknown" if effect["state"] == "intended" and not effect["is_under_way"] else str(effect["state"])


def _child(row: Row) -> Span:
    return Span("child", row["agent"], row["created_at"], row["finished_at"], row["state"], id=row["id"])


def _attempt_at(facts: Facts, at: int) -> int:
    """The attempt that was under way at an instant; the first where the clocks differ a little."""
    begun = [row["number"] for row in facts.attempts if row["started_at"] <= at]
    return int(begun[-1]) if begun else 1


def _told(error: str | Mapping[str, Any] | None) -> str:
    """A failure in a line."""
    if not isinstance(error, Mapping):
        return ""
    return f"{error.get('type', 'error')}: {error.get('message', '')}"


def _flat(tops: Sequence[_Node]) -> list[Span]:
    found: list[Span] = []

    def put(node: _Node, depth: int, parent: int | None) -> tuple[int, int]:
        place = len(found)
        found.append(node.span)
        sums = (node.span.cost_microusd, node.span.tokens)
        below = [put(each, depth + 1, place) for each in sorted(node.below, key=lambda each: each.span.started_at)]
        totals = [sum(pair) for pair in zip(sums, *below, strict=True)]
        found[place] = replace(node.span, depth=depth, parent=parent, cost_microusd=totals[0], tokens=totals[1])
        return totals[0], totals[1]

    for node in tops:
        put(node, 0, None)
    return found


def _by_key(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["key"]].append(row)
    return found


# --- sums ------------------------------------------------------------------------------------------------


def _where(facts: Facts, gaps: Sequence[Gap]) -> dict[Part, int]:
    found: Counter[Part] = Counter()
    at = int(facts.run["created_at"])
    for gap in gaps:
        found[gap.part] += (gap.ended_at or max(facts.now, gap.started_at)) - gap.started_at
    for attempt in facts.attempts:
        start = max(at, attempt["started_at"])
        at = max(start, attempt["finished_at"] or facts.now)
        found.update(_work_time(facts, attempt["number"], start, at))
    return {part: found[part] for part in PARTS if found[part]}


def _work_time(facts: Facts, number: int, start: int, end: int) -> Counter[Part]:
    """What an attempt spent its time on; `code` is what nothing else accounts for."""
    edges: list[tuple[int, WorkPart, int]] = []
    for node in _work_nodes(facts, number):
        span = node.span
        if span.kind in ("model", "tool", "step"):
            first, last = max(start, span.started_at), min(end, span.ended_at or end)
            if first < last:
                edges += [(first, span.kind, 1), (last, span.kind, -1)]
    found: Counter[Part] = Counter()
    active: Counter[WorkPart] = Counter()
    at = start
    for edge, kind, change in sorted(edges):
        found[_counting(active)] += edge - at
        active[kind] += change
        at = edge
    found[_counting(active)] += end - at
    return found


def _counting(active: Counter[WorkPart]) -> WorkPart:
    return next((kind for kind in _WORK if active[kind]), "code")


def _cost(facts: Facts) -> dict[str, Any]:
    """What the run's own calls have cost, by model and tool, the dearest first; its children's are theirs."""
    models, tools = _by_name(facts.model_calls, "model"), _by_name(facts.tool_calls, "tool")
    return {
        "microusd": sum(each["microusd"] for each in (*models, *tools)),
        "tokens": sum(each["tokens"] for each in models),
        "input_tokens": sum(_input_tokens(call) for call in facts.model_calls),
        "output_tokens": sum(call["output_tokens"] + call["reasoning_tokens"] for call in facts.model_calls),
        "model_calls": sum(call["outcome"] == "answered" for call in facts.model_calls),
        "cached_calls": sum(call["outcome"] == "cached" for call in facts.model_calls),
        "tool_calls": len(facts.tool_calls),
        "by_model": models,
        "by_tool": tools,
    }


def _by_name(calls: Sequence[Row], column: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for call in calls:
        line = found.setdefault(call[column], {"name": call[column], "calls": 0, "microusd": 0, "tokens": 0, "us": 0})
        line["calls"] += 1
        line["microusd"] += call["cost_microusd"]
        line["tokens"] += _tokens(call) if column == "model" else 0
        line["us"] += call["latency_us"]
    return sorted(found.values(), key=lambda line: (-line["microusd"], -line["us"], line["name"]))


def _input_tokens(call: Row) -> int:
    return int(call["input_tokens"] + call["cache_read_tokens"] + call["cache_write_tokens"])


def _tokens(call: Row) -> int:
    return _input_tokens(call) + int(call["output_tokens"] + call["reasoning_tokens"])
