"""Baselines: what is usual for each agent in cost, latency and tool mix, learned block by block from the counters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from pilothouse import payloads
from pilothouse.control import counters
from pilothouse.control.instants import now
from pilothouse.domain.alerts import Reading
from pilothouse.domain.anomalies import (
    BLOCK_RUNS,
    BLOCK_SECONDS,
    LAST,
    RUNS,
    TOTAL,
    Baseline,
    Block,
    observe_mean,
    observe_mix,
)
from pilothouse.domain.runs import RunState
from pilothouse.store.database import Row, Transaction

OWN = "pilothouse."
"""Agents that Pilothouse brings along are not watched: they send messages."""

TOLD_FROM = 100.0
"""Less evidence is nothing to tell of, with any threshold that makes sense."""

TIMED = (RunState.SUCCEEDED, RunState.FAILED)
ENDED = "ended"


class Measure(NamedTuple):
    """One thing that may drift: its rule, the counter it is summed from, and how a block of it is observed."""

    name: str
    rule: str
    counter: str
    observe: Callable[..., Baseline]
    tell: Callable[[str, Row], str]


def _tell_cost(agent: str, row: Row) -> str:
    last, before = _last_and_usual(row)
    told = f"a run of {agent} costs ${last / 1e6:,.4f} now, ${before / 1e6:,.4f} on average so far"
    return told + _ending(row, "cost-drift")


def _tell_latency(agent: str, row: Row) -> str:
    last, before = _last_and_usual(row)
    told = f"a run of {agent} takes {last / 1e6:,.2f} s now, {before / 1e6:,.2f} s on average so far"
    return told + _ending(row, "latency-drift")


def _tell_mix(agent: str, row: Row) -> str:
    return f"runs of {agent} call other tools, or in other shares, than they used to" + _ending(row, "tool-mix-drift")


def _last_and_usual(row: Row) -> tuple[float, float]:
    """Per run; of a row that has scores."""
    seen = payloads.decode(row["mix"])
    return seen[LAST], seen[TOTAL] / seen[RUNS]


def _ending(row: Row, rule: str) -> str:
    blocks = len(payloads.decode(row["scores"]))
    return (
        f" (evidence {row['evidence']:,.0f} over {blocks:,} blocks of {BLOCK_RUNS} runs or more); "
        f"`pilothouse alerts accept {rule} {row['agent']}` if it shall be so"
    )


MEASURES = (
    Measure("cost", "cost-drift", "cost_microusd", observe_mean, _tell_cost),
    Measure("latency", "latency-drift", "run_us", observe_mean, _tell_latency),
    Measure("tool-mix", "tool-mix-drift", "tool_calls", observe_mix, _tell_mix),
)
RULES = {measure.rule: measure.name for measure in MEASURES}

Totals = Mapping[str, float]


def due_in(tx: Transaction, thresholds: Mapping[str, float]) -> list[Row]:
    """The rows of all baselines that have a block more, or are new, by the thresholds of their rules; nothing is
    written.
    """
    known = {(row["agent"], row["measure"]): row for row in tx.fetch_all("list_baselines")}
    ended, at = _ended(tx), now(tx)
    rows = list[Row]()
    for measure in MEASURES:
        if measure.rule not in thresholds:
            continue
        totals = _totals(tx, measure)
        for agent, runs in sorted(ended.items()):
            key = {"agent": agent, "measure": measure.name}
            counted = {**totals[agent], ENDED: runs}
            if _is_due(known.get((agent, measure.name)), runs, at):
                row = _next(measure, tx.fetch_one("baseline_of", **key), counted, thresholds[measure.rule])
                rows.append(row | key)
    return rows


def _is_due(row: Row | None, runs: int, at: int) -> bool:
    """Is it new, has it a block more, or was something counted away?"""
    if row is None:
        return True
    more = runs - int(payloads.decode(row["counted"]).get(ENDED, 0))
    return more < 0 or (more >= BLOCK_RUNS and at - row["changed_at"] >= BLOCK_SECONDS * 1_000_000)


def _ended(tx: Transaction) -> dict[str, int]:
    ended: Counter[str] = Counter()
    for row in counters.read(tx, "runs_ended"):
        if row["label"] in TIMED and not row["agent"].startswith(OWN):
            ended[row["agent"]] += row["value"]
    return dict(ended)


def _totals(tx: Transaction, measure: Measure) -> dict[str, Counter[str]]:
    """What was counted so far, by agent; of tools, by each."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for row in counters.read(tx, measure.counter):
        name = row["label"].rpartition("/")[0] if measure.observe is observe_mix else "total"
        totals[row["agent"]][name] += row["value"]
    return totals


def _next(measure: Measure, row: Row | None, totals: Totals, threshold: float) -> Row:
    if row is None:
        return _row(Baseline(), totals)
    before: Totals = payloads.decode(row["counted"])
    runs = totals[ENDED] - before.get(ENDED, 0)
    if runs < 0:
        return _row(_baseline(row), totals)  # a restored backup counts anew
    grown = {name: max(0.0, value - before.get(name, 0)) for name, value in totals.items() if name != ENDED}
    block = Block(int(runs), sum(grown.values()), {name: value for name, value in grown.items() if value})
    return _row(measure.observe(_baseline(row), block, threshold=threshold), totals)


def _baseline(row: Row) -> Baseline:
    scores = tuple(float(score) for score in payloads.decode(row["scores"]))
    return Baseline(scores, float(row["evidence"]), payloads.decode(row["mix"]), row["learned"])


def _row(baseline: Baseline, totals: Totals) -> Row:
    return {
        "counted": payloads.encode(dict(totals)),
        "scores": payloads.encode(list(baseline.scores)),
        "mix": payloads.encode(dict(baseline.seen)),
        "learned": baseline.learned,
        "evidence": baseline.evidence,
    }


def readings_in(tx: Transaction) -> Iterator[Reading]:
    """The evidence that each agent has changed; the figures are only looked up where there is some."""
    measures = {measure.name: measure for measure in MEASURES}
    for row in tx.fetch_all("list_baselines"):
        measure, agent, evidence = measures[row["measure"]], row["agent"], float(row["evidence"])
        text = f"the evidence that {agent} has changed is {evidence:,.0f}"
        if evidence >= TOLD_FROM and (whole := tx.fetch_one("baseline_of", agent=agent, measure=measure.name)):
            text = measure.tell(agent, whole)
        yield Reading(measure.rule, f"agent:{agent}", evidence, text, agent)
