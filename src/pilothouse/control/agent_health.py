"""How an agent does, in one word with its reasons: the pages, the API and the terminal say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pilothouse.control import breakers, budgets
from pilothouse.control.agent_pages import AgentNow, AgentSeen
from pilothouse.control.views import view

Tone = Literal["red", "amber", "green", "grey"]
ORDER: Mapping[Tone, int] = {"red": 0, "amber": 1, "green": 2, "grey": 3}

POOR, BAD = 0.9, 0.5
"""Shares of success below which an agent is in trouble, and in a bad way."""

LONG_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """One word, its tone, and the reasons, the gravest first."""

    tone: Tone
    word: str
    reasons: tuple[str, ...] = ()


def health_of(each: AgentNow) -> Health:
    found = sorted(_complaints(each), key=lambda complaint: ORDER[complaint[0]])
    if found:
        tone, word, _ = found[0]
        return Health(tone, word, tuple(told for _, _, told in found))
    is_used = each.day.runs_ended or any(each.runs.values())
    return Health("green", "well") if is_used else Health("grey", "idle")


def figures_of(each: AgentNow) -> dict[str, Any]:
    """How an agent stands, as programs read it; the figures of today begin at midnight of the budgets' time zone."""
    day = each.day
    return {
        "name": each.agent["name"],
        "health": asdict(health_of(each)),
        "runs": {str(state): count for state, count in each.runs.items()},
        "oldest_age_seconds": each.oldest_age_seconds,
        "ended_today": day.ended,
        "success_share_today": day.success_share,
        "cost_microusd_today": day.cost_microusd,
        "limit_microusd_of_a_day": day.limit_microusd,
        "workers": each.workers,
        "switch": each.switch and view(each.switch),
        "breakers": [view(breakers.public(row)) for row in each.breakers],
    }


def all_figures_of(seen: AgentSeen, degrade_at: float) -> dict[str, Any]:
    """One agent with its latencies, versions, autonomy, limits, and every breaker of what it has called."""
    return figures_of(seen.standing) | {
        "median_seconds": seen.p50,
        "p95_seconds": seen.p95,
        "measured_runs": seen.measured,
        "versions": [view(asdict(each)) | {"success_share": each.success_share} for each in seen.versions],
        "levels": [view(row) for row in seen.levels],
        "breakers": [view(breakers.public(row)) for row in seen.breakers],
        "budgets": [budgets.public(each, seen.now, degrade_at) for each in seen.budgets],
    }


def _complaints(each: AgentNow) -> Iterator[tuple[Tone, str, str]]:
    """Tone, word and reason of all that is wrong."""
    day, share, is_busy = each.day, each.day.success_share, any(each.runs.values())
    if each.switch:
        yield "red", "stopped", f"switch {each.switch['scope']} is tripped ({each.switch['mode']})"
    if not each.workers:
        yield "red" if is_busy else "grey", "not served", "no live worker runs it"
    if day.limit_microusd is not None and day.cost_microusd >= day.limit_microusd:
        yield "red", "used up", f"its limit of today, ${day.limit_microusd / 1_000_000:,.2f}, is used up"
    if share is not None and share < POOR:
        yield "red" if share < BAD else "amber", "fails", f"{_percent(share)} of its runs succeeded today"
    for breaker in each.breakers:
        yield "amber", "breaker open", f"the breaker before {breaker['name']} is {breaker['state']}"
    if each.workers and not each.switch and each.oldest_age_seconds > LONG_WAIT_SECONDS:
        yield "amber", "slow", f"its oldest run has been due for {each.oldest_age_seconds:,.0f} s"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"
