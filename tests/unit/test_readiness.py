"""Readiness, judged from facts: what is dead degrades those who use it, and every verdict says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.readiness import Answers, Check, Chore, Facts, judge, worst

WELL = Facts(
    takers=2,
    idle=0,
    chores=(Chore("janitor", 0.4, False), Chore("timers", 0.2, False)),
    agents=("billing", "triage"),
    resting={},
    users={},
    answers={},
    switches=(),
    spent=(),
    skew_seconds=0.1,
)
ROUTES = {"main": ("a:x", "b:y"), "small": ("b:y",)}
NAMES = st.sampled_from(["billing", "triage", "old"])


def judged(
    changes: dict[str, object] | None = None, *, routes: Mapping[str, tuple[str, ...]] = ROUTES, **more: object
) -> dict[str, Check]:
    return judge(replace(WELL, **(changes or {}), **more), routes)  # type: ignore[arg-type]


def test_all_is_well() -> None:
    checks = judged()

    assert worst(checks) == "ready"
    assert "those for each, as user:*, are not checked" in checks["budgets"].detail
    assert set(checks) == {
        "workers", "scheduler", "agents", "breakers", "switches", "budgets", "models", "clock"
    }  # fmt: skip
    assert "clock" not in judged(skew_seconds=None)
    assert "models" not in judged(routes={})


@pytest.mark.parametrize(
    ("changes", "name", "reason", "command"),
    [
        ({"takers": 0}, "workers", "no live worker", "pilothouse worker"),
        ({"takers": 0, "idle": 3}, "workers", "3 live, and none takes runs", "pilothouse workers list"),
        ({"chores": ()}, "scheduler", "no scheduler", "pilothouse scheduler"),
        (
            {"chores": (Chore("timers", 0.2, False), Chore("seals", 71.0, True))},
            "scheduler",
            "1 of 2 chores have not had their turn in time; seals has not for 71 s",
            "pilothouse scheduler",
        ),
        ({"agents": ()}, "agents", "every submit is refused", "pilothouse worker module:app"),
        ({"switches": ("global",)}, "switches", "nothing is claimed", "pilothouse switch list"),
        ({"spent": ("global money of 2026-11-21",)}, "budgets", "global money of 2026-11-21", "pilothouse budget list"),
        ({"skew_seconds": -7.5}, "clock", "7.5 s behind the database's", "timedatectl"),
        ({"skew_seconds": 2.1}, "clock", "2.1 s ahead of the database's", "timedatectl"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_run(
    changes: dict[str, object], name: str, reason: str, command: str
) -> None:
    checks = judged(changes)

    assert {other for other, check in checks.items() if check.status != "ready"} == {name}
    assert reason in checks[name].detail
    assert checks[name].command == command


@given(users=st.frozensets(NAMES), agents=st.frozensets(NAMES, min_size=1))
def test_a_dead_tool_degrades_the_platform_only_when_all_agents_use_it(
    users: frozenset[str], agents: frozenset[str]
) -> None:
    checks = judged(resting={"tool:mail": "down"}, users={"tool:mail": users}, agents=tuple(agents))

    assert (checks["breakers"].status == "degraded") == (users >= agents)
    assert worst(checks) == checks["breakers"].status
    assert all(user in checks["breakers"].detail for user in users)


@given(
    resting=st.frozensets(st.sampled_from(["a:x", "b:y"])),
    failed=st.integers(0, 9),
    answered=st.integers(0, 2),
)
def test_a_route_is_reachable_while_one_of_its_models_may_be_asked(
    resting: frozenset[str], failed: int, answered: int
) -> None:
    checks = judged(
        resting={f"model:{name}": "down" for name in resting},
        answers={"b:y": Answers(answered=answered, failed=failed)},
    )

    is_b_away = "b:y" in resting or (answered == 0 and failed >= 3)
    assert (checks["models"].status == "degraded") == is_b_away
    if is_b_away:
        assert "route small" in checks["models"].detail
        assert ("route main" in checks["models"].detail) == ("a:x" in resting)
    elif resting:
        assert "passed over: a:x" in checks["models"].detail


def test_customers_are_counted_and_never_named() -> None:
    checks = judged(switches=("agent:billing", "tenant:acme"), spent=("tenant:acme usd of today", "user:ann usd"))

    assert checks["switches"].detail == "tripped: agent:billing, 1 of tenants or users"
    assert checks["budgets"].detail == "used up: 2 of tenants or users; runs that need more wait"
    assert worst(checks) == "ready"
