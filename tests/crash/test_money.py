"""Budgets under real processes: several workers on one budget, one of them killed in the middle of its calls."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pilothouse.control import limits
from pilothouse.domain.limits import Limit, Period, Unit
from tests.crash.processes import SURE_LEASE, Fleet, eventually

RUNS = 40
WORST, USED = 10_000, 1_000
"""Micro-dollars: a thousand tokens are reserved for an answer of a hundred."""

USES = (
    "SELECT coalesce(sum(settled_microusd), 0) AS settled, coalesce(sum(reserved_microusd), 0) AS reserved FROM ledger"
)
HELD = "SELECT attempt, microusd FROM reservations WHERE state = 'held'"


def settings(folder: Path, *, delay_seconds: float) -> dict[str, str]:
    script = folder / "script.yaml"
    script.write_text(f"- say: {'x ' * 100}\n  delay_seconds: {delay_seconds}\n")
    return {
        "PILOTHOUSE_OFFLINE_MODEL": f"offline:scripted:{script}",
        "PILOTHOUSE_PRICES": json.dumps({"offline:*": {"input_usd": 0.0, "output_usd": 10.0}}),
        "PILOTHOUSE_ROUTES": json.dumps({"default": {"models": ["openai:gpt-5-mini"]}}),
    }


def limit_to(fleet: Fleet, microusd: int) -> None:
    asyncio.run(limits.set_limit(fleet.db, Limit("global", Period.DAY, Unit.MICROUSD, microusd), principal="test"))


def uses(fleet: Fleet) -> tuple[int, int]:
    (row,) = fleet.db.examine(lambda tx: tx.fetch_all(USES))
    return row["settled"], row["reserved"]


def ask(fleet: Fleet) -> list[str]:
    return [fleet.submit("questioner", number=number)[0] for number in range(RUNS)]


def watched(fleet: Fleet, budget: int, is_over: Callable[[], object]) -> Callable[[], object]:
    """`is_over`, asked while it is looked whether the budget holds."""

    def look() -> object:
        assert sum(uses(fleet)) <= budget
        return is_over()

    return look


def test_several_workers_use_one_budget_up_and_never_pass_it(fleet: Fleet) -> None:
    budget, environment = 26_500, settings(fleet.folder, delay_seconds=0.05)
    limit_to(fleet, budget)
    ids = ask(fleet)
    for name in ("first", "second", "third"):
        fleet.start_worker(name, **environment, **SURE_LEASE)

    def is_used_up() -> bool:
        settled, reserved = uses(fleet)
        states = fleet.states(ids)
        return reserved == 0 and settled > budget - 2_560 and states["running"] == states["queued"] == 0

    eventually(watched(fleet, budget, is_used_up), "the budget to be used up")

    assert fleet.states(ids) == Counter(succeeded=uses(fleet)[0] // USED, waiting=RUNS - uses(fleet)[0] // USED)
    limit_to(fleet, 100 * WORST)
    assert fleet.until_ended(ids) == {"succeeded": RUNS}
    assert uses(fleet) == (RUNS * USED, 0)


def test_what_a_killed_worker_had_reserved_stays_reserved_and_counts(fleet: Fleet) -> None:
    budget = 3 * WORST
    limit_to(fleet, budget)
    ids = ask(fleet)
    fleet.start_worker("slow", **settings(fleet.folder, delay_seconds=600))
    eventually(lambda: uses(fleet)[1] >= 2 * WORST, "calls under way")
    held = uses(fleet)[1]
    fleet.kill("slow")
    (fleet.folder / "script.yaml").unlink()

    fleet.start("janitor", "scheduler")
    fleet.start_worker("quick", **settings(fleet.folder, delay_seconds=0), **SURE_LEASE)
    eventually(
        watched(fleet, budget, lambda: uses(fleet)[0] + held > budget - 2_560 - USED), "the rest of it to be used up"
    )

    settled, reserved = uses(fleet)
    lost = fleet.db.examine(lambda tx: tx.fetch_all(HELD))
    assert sum(row["microusd"] for row in lost if row["attempt"] == 1) == held
    assert settled + reserved <= budget
    limit_to(fleet, 100 * WORST)
    assert fleet.until_ended(ids) == {"succeeded": RUNS}
    assert uses(fleet) == (RUNS * USED, held)
