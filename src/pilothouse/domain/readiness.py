"""Whether Pilothouse can do its work now, judged from facts; each check says why not, and what to run next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Literal, TypeVar

from pilothouse.domain.words import counted

T = TypeVar("T")

Status = Literal["ready", "degraded", "not_ready"]
_ORDER: tuple[Status, ...] = ("ready", "degraded", "not_ready")

SKEW_SECONDS = 2.0
"""How far this process's clock may be from the database's."""

NAMED_AT_MOST = 5
OF_CUSTOMERS = ("tenant:", "user:")
FEW_CALLS = 3
"""So many calls of a model without one answer say that it does not answer; fewer may be chance."""


@dataclass(frozen=True, slots=True)
class Check:
    """`degraded`: requests are taken and stored, but some of their runs will wait. `not_ready`: they cannot be taken.

    `command` is what to run next, where there is something.
    """

    status: Status
    detail: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Chore:
    """A chore of the scheduler: how long ago it took its turn (None: unknown), and whether its lease has run out."""

    name: str
    age_seconds: float | None
    is_late: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said lately: how many calls it answered, and how many it did not."""

    answered: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database knows, at one instant. `resting` are dependencies whose breaker is open, each with the reason;
    `users` the agents that have called a dependency; `switches` the tripped scopes; `spent` the accounts without room.
    """

    takers: int
    idle: int
    chores: tuple[Chore, ...]
    agents: tuple[str, ...]
    resting: Mapping[str, str]
    users: Mapping[str, frozenset[str]]
    answers: Mapping[str, Answers]
    switches: tuple[str, ...]
    spent: tuple[str, ...]
    skew_seconds: float | None = None


def worst(checks: Mapping[str, Check]) -> Status:
    return max((check.status for check in checks.values()), key=_ORDER.index)


def judge(facts: Facts, routes: Mapping[str, Sequence[str]]) -> dict[str, Check]:
    """The checks that follow from facts; `routes` are the models of each route, in their order."""
    checks = {
        "workers": _workers(facts),
        "scheduler": _scheduler(facts.chores),
        "agents": _agents(facts.agents),
        "breakers": _breakers(facts),
        "switches": _switches(facts.switches),
        "budgets": _budgets(facts.spent),
    }
    if routes:
        checks["models"] = _models(facts, routes)
    if facts.skew_seconds is not None:
        checks["clock"] = _clock(facts.skew_seconds)
    return checks


def _workers(facts: Facts) -> Check:
    if facts.takers:
        return Check("ready", f"{facts.takers} live")
    if facts.idle:
        told = f"{facts.idle} live, and none takes runs: they drain, or were started with ENGINE_ENABLED=false"
        return Check("degraded", told, "pilothouse workers list")
    told = "no live worker: runs are taken but will wait; start one with `pilothouse worker`"
    return Check("degraded", told, "pilothouse worker")


def _scheduler(chores: Sequence[Chore]) -> Check:
    command = "pilothouse scheduler"
    if not chores:
        told = "no scheduler: schedules do not fire, deadlines do not pass, and runs of lost workers stay theirs"
        return Check("degraded", told, command)
    late = [chore for chore in chores if chore.is_late]
    if late:
        oldest = max(late, key=lambda chore: chore.age_seconds or 0)
        since = "" if oldest.age_seconds is None else f" for {oldest.age_seconds:.0f} s"
        told = f"{len(late)} of {len(chores)} chores have not had their turn in time; {oldest.name} has not{since}"
        return Check("degraded", told, command)
    freshest = min((chore.age_seconds for chore in chores if chore.age_seconds is not None), default=0.0)
    return Check("ready", f"{len(chores)} chores, the last turn {freshest:.1f} s ago")


def _agents(agents: Sequence[str]) -> Check:
    if agents:
        return Check("ready", f"{len(agents)} registered")
    told = "no agent is registered: every submit is refused; start a worker of an App that has some"
    return Check("degraded", told, "pilothouse worker module:app")


def _breakers(facts: Facts) -> Check:
    """What is dead degrades those who use it; the platform only when it is all of them."""
    if not facts.resting:
        return Check("ready", "all closed")
    told = "; ".join(_resting(name, reason, facts) for name, reason in _some(facts.resting.items()))
    hit = {agent for name in facts.resting for agent in facts.users.get(name, ())}
    is_all = bool(facts.agents) and hit >= set(facts.agents)
    return Check("degraded" if is_all else "ready", told, "pilothouse agents list")


def _resting(name: str, reason: str, facts: Facts) -> str:
    users = sorted(facts.users.get(name, ()))
    whose = f"; used by {', '.join(_some(users))}" if users else ""
    return f"{name} is left alone ({reason}{whose})"


def _models(facts: Facts, routes: Mapping[str, Sequence[str]]) -> Check:
    """A route is reachable while one of its models may be asked; nothing is asked here, for that would cost."""
    silent = {model: why for models in routes.values() for model in models if (why := _why_silent(model, facts))}
    away = [name for name, models in routes.items() if all(model in silent for model in models)]
    if away:
        told = "; ".join(
            f"route {name}: " + ", ".join(f"{model} {silent[model]}" for model in routes[name]) for name in _some(away)
        )
        return Check("degraded", f"{told}; runs that ask it wait", "pilothouse runs list --state waiting")
    if silent:
        told = ", ".join(f"{model} {why}" for model, why in _some(silent.items()))
        return Check("ready", f"{_reachable(routes)}; passed over: {told}")
    return Check("ready", f"{_reachable(routes)}, by breakers and the latest calls")


def _reachable(routes: Sized) -> str:
    return f"{counted(len(routes), 'route')} reachable"


def _why_silent(model: str, facts: Facts) -> str | None:
    if f"model:{model}" in facts.resting:
        return "is left alone"
    answers = facts.answers.get(model, Answers())
    if not answers.answered and answers.failed >= FEW_CALLS:
        return f"answered none of {answers.failed} calls"
    return None


def _switches(tripped: Sequence[str]) -> Check:
    if not tripped:
        return Check("ready", "none is tripped")
    command = "pilothouse switch list"
    if "global" in tripped:
        return Check("degraded", "the global switch is tripped: nothing is claimed", command)
    return Check("ready", f"tripped: {_named(tripped)}", command)


def _budgets(spent: Sequence[str]) -> Check:
    """Limits for each of a kind have any number of accounts, too many for a check that anybody may ask for."""
    if not spent:
        return Check("ready", "room under every limit of one account; those for each, as user:*, are not checked")
    command = "pilothouse budget list"
    is_global = any(account.startswith("global ") for account in spent)
    told = f"used up: {_named(spent)}; runs that need more wait"
    return Check("degraded" if is_global else "ready", told, command)


def _clock(skew_seconds: float) -> Check:
    told = f"{abs(skew_seconds):.1f} s {'ahead of' if skew_seconds > 0 else 'behind'} the database's"
    if abs(skew_seconds) <= SKEW_SECONDS:
        return Check("ready", told)
    return Check("degraded", f"this machine's clock is {told}: instants it writes are wrong by as much", "timedatectl")


def _named(scopes: Iterable[str]) -> str:
    """Scopes by name, those of customers only counted: readiness answers whoever asks."""
    found = list(scopes)
    open_ones = [scope for scope in found if not scope.startswith(OF_CUSTOMERS)]
    hidden = len(found) - len(open_ones)
    return ", ".join([*_some(open_ones), *([f"{hidden} of tenants or users"] if hidden else [])])


def _some(items: Iterable[T]) -> list[T]:
    return list(items)[:NAMED_AT_MOST]
