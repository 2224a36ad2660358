"""Policies: pure functions from a proposed action and the facts around it to a verdict: allow, ask a person, or deny.

The strictest verdict of all rules wins, and the reasons of all of them are kept. Verdicts form a lattice: in whatever
order they are joined, and however often, the same one comes out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, time
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Billing = Literal["none", "one_time", "recurring"]
Autonomy = Literal["supervised", "assisted", "autonomous"]
OnDeadline = Literal["wait", "escalate", "expire"]
Reviewer = Literal["operator", "admin"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ON_DEADLINE: tuple[OnDeadline, ...] = ("wait", "escalate", "expire")
REVIEWERS: tuple[Reviewer, ...] = ("operator", "admin")
TIER_NAMES = ("minimal", "low", "moderate", "high", "critical")
ASKED_FROM_TIER = 2
"""Risk tiers 0 and 1 act on their own; 2 needs a reviewer, 3 a senior one, 4 two different people."""

PEOPLE_LIMIT = 100


class Decision(StrEnum):
    """What may become of a proposed action, from the mildest to the strictest."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


STRICTNESS = {decision: place for place, decision in enumerate(Decision)}


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an agent is about to do. `action` is the name of a tool or of an approval; `kind` says of which.

    `risk` is a tier from 0 to 4. `arguments` are exactly what would be done.
    """

    agent: str
    action: str
    kind: Literal["tool", "approval"] = "tool"
    effect: str = "write"
    platform: str | None = None
    arguments: Mapping[str, object] = field(default_factory=dict)
    amount_usd: float = 0.0
    billing: Billing = "none"
    people_affected: int = 0
    risk: int = 0
    data_class: str | None = None
    is_reversible: bool = True
    tenant: str = "default"
    user_id: str | None = None
    called_by: Literal["code", "model"] = "code"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known around a proposal. `confidence` is calibrated, in 0 to 1; None where none was stated. `lift` is how
    much more of it is wanted, because what was stated was worth less before.

    `is_first_time`: this agent has never done this action. `spent_today_usd` is what its agent has
    spent and reserved on this day of the budgets, as of a few seconds ago; only functions look at it.
    """

    now: datetime = EPOCH
    is_first_time: bool = False
    confidence: float | None = None
    autonomy: Autonomy = "assisted"
    spent_today_usd: float = 0.0
    lift: float = 0.0


class Reason(NamedTuple):
    """Why a rule said what it said."""

    rule: str
    decision: Decision
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule, or all of them together, say of a proposal.

    To ask means `quorum` different people, each a `reviewer` at least, until the deadline where one is set.
    """

    decision: Decision
    reasons: tuple[Reason, ...] = ()
    quorum: int = 1
    reviewer: Reviewer = "operator"
    deadline_hours: float | None = None
    on_deadline: OnDeadline = "wait"
    version: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision", Decision(self.decision))

    @classmethod
    def allow(cls, reason: str = "") -> Verdict:
        """Nothing against it."""
        return cls(Decision.ALLOW, _reasons(Decision.ALLOW, reason))

    @classmethod
    def ask(
        cls,
        reason: str,
        *,
        quorum: int = 1,
        reviewer: Reviewer = "operator",
        deadline_hours: float | None = None,
        on_deadline: OnDeadline = "wait",
    ) -> Verdict:
        """A person must approve it."""
        reasons = _reasons(Decision.ASK, reason)
        return cls(Decision.ASK, reasons, quorum, reviewer, deadline_hours, on_deadline)

    @classmethod
    def deny(cls, reason: str) -> Verdict:
        """It must not be done, whoever approves it."""
        return cls(Decision.DENY, _reasons(Decision.DENY, reason))

    def named(self, rule: str) -> Verdict:
        """The same verdict, its reasons those of `rule`."""
        reasons = tuple(Reason(each.rule or rule, each.decision, each.text) for each in self.reasons)
        return replace(self, reasons=reasons)

    @property
    def told(self) -> str:
        """The reasons that led to the decision, as one line."""
        texts = [each.text for each in self.reasons if each.decision == self.decision]
        return "; ".join(dict.fromkeys(texts)) or "no rule is against it"


def _reasons(decision: Decision, text: str) -> tuple[Reason, ...]:
    return (Reason("", decision, text),) if text else ()


ALLOWED = Verdict(Decision.ALLOW)


def join(first: Verdict, second: Verdict) -> Verdict:
    """The strictest of two verdicts, in each of its parts, with the reasons of both."""
    deadlines = [each.deadline_hours for each in (first, second) if each.deadline_hours is not None]
    return Verdict(
        decision=max(first.decision, second.decision, key=STRICTNESS.__getitem__),
        reasons=_in_order({*first.reasons, *second.reasons}),
        quorum=max(first.quorum, second.quorum),
        reviewer=max(first.reviewer, second.reviewer, key=REVIEWERS.index),
        deadline_hours=min(deadlines, default=None),
        on_deadline=max(first.on_deadline, second.on_deadline, key=ON_DEADLINE.index),
        version=max(first.version, second.version),
    )


def _in_order(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=lambda each: (-STRICTNESS[each.decision], each.rule, each.text)))


def is_stricter(verdict: Verdict, than: Verdict) -> bool:
    """Whether a verdict wants more people, or more senior ones, than another."""
    return verdict.quorum > than.quorum or REVIEWERS.index(verdict.reviewer) > REVIEWERS.index(than.reviewer)


# --- rules -------------------------------------------------------------------------------------

SAID = ("then", "reason")
TERMS = ("quorum", "reviewer", "deadline_hours", "on_deadline")
"""Fields of a rule that say how people are asked; all others are its conditions."""

Globs = str | tuple[str, ...] | None
PolicyFunction = Callable[[Proposal, Facts], Verdict | None]
"""A rule in Python: pure, so that the same proposal and facts always give the same verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of pilothouse.toml: where all of its conditions hold, it says `then`.

    `action`, `agent`, `platform`, `tenant`, `effect`, `billing` and `data_class` take a pattern such as `refund_*`, or
    several; `tool` is an `action` that only tools have. `outside_hours` is a span such as "08:00-18:00" in `timezone`,
    on `days` such as "mon-fri". What it asks for: `quorum` people, a `reviewer`, within `deadline_hours`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    then: Decision
    reason: str = ""
    action: Globs = None
    tool: Globs = None
    agent: Globs = None
    platform: Globs = None
    tenant: Globs = None
    effect: Globs = None
    billing: Globs = None
    data_class: Globs = None
    called_by: Literal["code", "model"] | None = None
    autonomy: Globs = None
    amount_over_usd: float | None = None
    risk_at_least: int | None = None
    people_over: int | None = None
    confidence_under: float | None = None
    first_time: bool | None = None
    reversible: bool | None = None
    outside_hours: str | None = None
    timezone: str = "UTC"
    days: str | None = None
    quorum: int = 1
    reviewer: Reviewer = "operator"
    deadline_hours: float | None = None
    on_deadline: OnDeadline = "wait"

    def __post_init__(self) -> None:
        object.__setattr__(self, "then", Decision(self.then))
        _check_range("risk_at_least", self.risk_at_least, 0, 4)
        _check_range("confidence_under", self.confidence_under, 0, 1)
        _check_range("amount_over_usd", self.amount_over_usd, 0, None)
        _check_range("people_over", self.people_over, 0, None)
        _check_range("quorum", self.quorum, 1, 10)
        if self.deadline_hours is not None and self.deadline_hours <= 0:
            raise ValueError(f"deadline_hours is {self.deadline_hours:g}; it must be more than 0")
        if self.outside_hours is not None:
            parse_span(self.outside_hours)
        if self.days is not None:
            parse_days(self.days)
        zone_of(self.timezone)

    @property
    def looks_at_history(self) -> bool:
        """Whether it asks for facts that are kept in the database."""
        return self.first_time is not None

    def verdict(self, name: str, proposal: Proposal, facts: Facts) -> Verdict | None:
        """What it says; None where its conditions do not hold."""
        if not self._fits(proposal) or not self._holds(proposal, facts):
            return None
        text = self.reason or f"policy {name}"
        return Verdict(
            self.then,
            (Reason(name, self.then, text),),
            self.quorum,
            self.reviewer,
            self.deadline_hours,
            self.on_deadline,
        )

    def may_fit(self, proposal: Proposal) -> bool:
        """Whether it may speak of a proposal, as far as that can be told without any facts."""
        return self._fits(proposal)

    def _fits(self, proposal: Proposal) -> bool:
        return (
            _matches(self.action, proposal.action)
            and (self.tool is None or (proposal.kind == "tool" and _matches(self.tool, proposal.action)))
            and _matches(self.agent, proposal.agent)
            and _matches(self.platform, proposal.platform)
            and _matches(self.tenant, proposal.tenant)
            and _matches(self.effect, proposal.effect)
            and _matches(self.billing, proposal.billing)
            and _matches(self.data_class, proposal.data_class)
            and self.called_by in (None, proposal.called_by)
            and self.reversible in (None, proposal.is_reversible)
            and (self.amount_over_usd is None or proposal.amount_usd > self.amount_over_usd)
            and (self.risk_at_least is None or proposal.risk >= self.risk_at_least)
            and (self.people_over is None or proposal.people_affected > self.people_over)
        )

    def _holds(self, proposal: Proposal, facts: Facts) -> bool:
        return (
            self.first_time in (None, facts.is_first_time)
            and _matches(self.autonomy, facts.autonomy)
            and (
                self.confidence_under is None
                or (facts.confidence is not None and facts.confidence < self.confidence_under)
            )
            and not self._is_inside(facts.now)
        )

    def _is_inside(self, now: datetime) -> bool:
        """Whether it is within the hours that the rule leaves alone."""
        if self.outside_hours is None and self.days is None:
            return False
        local = now.astimezone(zone_of(self.timezone))
        is_day = self.days is None or local.weekday() in parse_days(self.days)
        return is_day and (self.outside_hours is None or _is_within(parse_span(self.outside_hours), local.time()))

    def __str__(self) -> str:
        fields = self.__dataclass_fields__
        changed = [name for name in fields if name not in SAID and getattr(self, name) != fields[name].default]
        when, how = ([self._shown(name) for name in changed if (name in TERMS) is is_term] for is_term in (False, True))
        return " ".join([str(self.then), *(["if", *when] if when else ["always"]), *(["with", *how] if how else [])])

    def _shown(self, name: str) -> str:
        match getattr(self, name):
            case tuple() as several:
                return f"{name}={','.join(several)}"
            case float() as number:
                return f"{name}={number:g}"
            case value:
                return f"{name}={value}"


def _check_range(name: str, value: float | None, least: float, most: float | None) -> None:
    if value is None:
        return
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {value:g}; it must be {least:g}" + (f" to {most:g}" if most else " or more"))


def _matches(patterns: Globs, value: str | None) -> bool:
    if patterns is None:
        return True
    if value is None:
        return False
    return any(fnmatchcase(value, each) for each in ((patterns,) if isinstance(patterns, str) else patterns))


# --- hours -------------------------------------------------------------------------------------

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@lru_cache(maxsize=64)
def parse_span(text: str) -> tuple[time, time]:
    """Reads `08:00-18:00`; a span may go over midnight. Raises ValueError."""
    try:
        begin, end = (time.fromisoformat(part.strip()) for part in text.split("-"))
    except ValueError as error:
        raise ValueError(f"outside_hours is {text!r}; write a span such as 08:00-18:00") from error
    if begin == end:
        raise ValueError(f"outside_hours is {text!r}, which leaves no time in between")
    return begin, end


def _is_within(span: tuple[time, time], moment: time) -> bool:
    begin, end = span
    return begin <= moment < end if begin < end else moment >= begin or moment < end


@lru_cache(maxsize=64)
def parse_days(text: str) -> frozenset[int]:
    """Reads `mon-fri` or `mon,wed,sat`; Monday is 0. Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = (each.strip() for each in part.partition("-"))
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"days is {text!r}; write days such as mon-fri or mon,wed")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return frozenset(days)


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Raises ValueError for a name that no time zone has."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"timezone is {name!r}; write an IANA name such as Europe/Paris") from error


# --- all of them together ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the built-in rules ask: they look only at what a proposal declares of itself."""

    auto_spend_limit_usd: float = 10.0
    confidence_auto_threshold: float = 0.9
    denied_data_classes: tuple[str, ...] = ()
    people: int = PEOPLE_LIMIT


def built_in(limits: Thresholds, proposal: Proposal, facts: Facts) -> list[Verdict]:
    """The verdicts of the built-in rules that apply."""
    said: list[Verdict] = []
    if proposal.data_class is not None and proposal.data_class in limits.denied_data_classes:
        said.append(Verdict.deny(f"data of class {proposal.data_class!r} is denied").named("data_class"))
    if proposal.amount_usd > limits.auto_spend_limit_usd:
        text = f"{proposal.amount_usd:,.2f} USD is more than {limits.auto_spend_limit_usd:,.2f} (AUTO_SPEND_LIMIT_USD)"
        said.append(Verdict.ask(text).named("amount"))
    if proposal.billing == "recurring":
        said.append(Verdict.ask("it charges again and again (billing is recurring)").named("recurring"))
    if proposal.risk >= ASKED_FROM_TIER:
        said.append(_of_tier(proposal.risk).named("risk"))
    if proposal.people_affected > limits.people:
        text = f"{proposal.people_affected:,} people are affected, more than {limits.people:,}"
        said.append(Verdict.ask(text).named("people"))
    wanted = min(1.0, limits.confidence_auto_threshold + facts.lift)
    if facts.confidence is not None and facts.confidence < wanted:
        text = f"confidence {facts.confidence:.2f} is under {wanted:.2f}"
        said.append(Verdict.ask(f"{text} (CONFIDENCE_AUTO_THRESHOLD)").named("confidence"))
    return said


def _of_tier(risk: int) -> Verdict:
    """2: one reviewer. 3: a senior one. 4: two different people."""
    text = f"risk tier {risk} ({TIER_NAMES[risk]})"
    match risk:
        case 2:
            return Verdict.ask(f"{text} needs a reviewer")
        case 3:
            return Verdict.ask(f"{text} needs a senior reviewer", reviewer="admin")
        case _:
            return Verdict.ask(f"{text} needs two different people", quorum=2)


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Everything that speaks of a proposal: the built-in rules, those of the settings, and functions.

    `version` is the first 16 hex digits of a hash over them: another one where any of them is another.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    functions: Sequence[PolicyFunction] = ()
    version: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", _version(self))

    def verdict(self, proposal: Proposal, facts: Facts) -> Verdict:
        """The join of what all rules say. A function that breaks asks a person: it could have said anything."""
        verdict = ALLOWED
        for said in self.opinions(proposal, facts):
            verdict = join(verdict, said)
        return replace(verdict, version=self.version)

    def opinions(self, proposal: Proposal, facts: Facts) -> list[Verdict]:
        """What each rule that applies says, one by one."""
        said = built_in(self.thresholds, proposal, facts)
        own = (rule.verdict(name, proposal, facts) for name, rule in self.rules.items())
        written = (_asked(function, proposal, facts) for function in self.functions)
        return [*said, *(each for each in own if each is not None), *(each for each in written if each is not None)]

    @property
    def looks_at_money(self) -> bool:
        """Whether the verdict may hang on what the agent has spent."""
        return bool(self.functions)

    def looks_at_history(self, proposal: Proposal) -> bool:
        """Whether the verdict may hang on what this agent has done before."""
        return bool(self.functions) or any(
            rule.looks_at_history and rule.may_fit(proposal) for rule in self.rules.values()
        )


def _version(book: Rulebook) -> str:
    told = {
        "thresholds": asdict(book.thresholds),
        "rules": {name: asdict(rule) for name, rule in book.rules.items()},
        "functions": [_source(function) for function in book.functions],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _source(function: PolicyFunction) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return name_of(function)


def name_of(function: PolicyFunction) -> str:
    """What a policy in Python is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def _asked(function: PolicyFunction, proposal: Proposal, facts: Facts) -> Verdict | None:
    name = name_of(function)
    try:
        said: object = function(proposal, facts)
    except Exception as error:  # noqa: BLE001 - user code; a policy that cannot be asked does not allow
        return Verdict.ask(f"policy {name} failed: {type(error).__name__}: {error}").named(name)
    match said:
        case None:
            return None
        case Verdict():
            return said.named(name)
        case _:
            return Verdict.ask(f"policy {name} returned {type(said).__name__}, no Verdict").named(name)
