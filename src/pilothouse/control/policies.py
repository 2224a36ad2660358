"""Policies: the worker's rulebook, and the facts that its verdicts look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilothouse.clock import to_datetime
from pilothouse.control import audit, autonomy, budgets
from pilothouse.control.glances import LOOK_SECONDS
from pilothouse.domain.autonomy import Act, AutonomyFacts, Level, Standing
from pilothouse.domain.calendars import Calendar
from pilothouse.domain.calibration import calibrate
from pilothouse.domain.effects import Effect
from pilothouse.domain.limits import Period, Pocket
from pilothouse.domain.policies import (
    Decision,
    Facts,
    PolicyFunction,
    Proposal,
    Rulebook,
    Verdict,
    join,
    name_of,
)
from pilothouse.store.database import Database, Transaction

SPENT_SECONDS = 5.0
"""How old may be what an agent has spent today: a fact to decide by. What must not be passed is a limit."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far agents are trusted: by the fingerprint of their code, and by `level` where nothing is known of it yet."""

    fingerprints: Mapping[str, str]
    level: Level


class Policies:
    """Speaks of proposals by a rulebook and by how far the agent is trusted; what it denies is in the audit."""

    def __init__(self, db: Database, book: Rulebook, trust: Trust, calendar: Calendar) -> None:
        self._db = db
        self.book = book
        self._trust = trust
        self._calendar = calendar
        self._has_acted: set[tuple[str, str]] = set()
        self._seen: dict[tuple[str, str], tuple[float, AutonomyFacts]] = {}
        self._spent: dict[str, tuple[float, float]] = {}

    async def verdict(self, proposal: Proposal, confidence: float | None, run_id: str | None = None) -> Verdict:
        """What may become of a proposal. `confidence` is as the agent states it; `run_id` is whose proposal it is."""
        trusted = await self._trusted(proposal)
        verdict = self.book.verdict(proposal, await self._facts(proposal, confidence, trusted))
        verdict = _with_autonomy(verdict, trusted, _act(proposal, confidence))
        if verdict.decision is Decision.DENY and run_id is not None:
            await self._record_denial(proposal, verdict, run_id)
        return verdict

    async def _facts(self, proposal: Proposal, stated: float | None, trusted: AutonomyFacts) -> Facts:
        """What is known around a proposal; the database is asked only where a rule may look at its answer."""
        wanted = self.book.thresholds.confidence_auto_threshold
        return Facts(
            now=to_datetime(self._db.clock.now_us()),
            is_first_time=self.book.looks_at_history(proposal) and await self._is_first_time(proposal),
            confidence=None if stated is None else trusted.calibration.calibrated(stated),
            lift=trusted.calibration.threshold(wanted) - wanted,
            autonomy=trusted.level.value,
            spent_today_usd=await self._spent_today_usd(proposal.agent) if self.book.looks_at_money else 0.0,
        )

    async def _trusted(self, proposal: Proposal) -> AutonomyFacts:
        """As it was seen a moment ago at most."""
        key, moment = (proposal.agent, proposal.action), self._db.clock.monotonic()
        seen_at, seen = self._seen.get(key, (float("-inf"), None))
        if seen is None or moment - seen_at > LOOK_SECONDS:
            fingerprint, level = self._trust.fingerprints.get(proposal.agent, ""), self._trust.level
            seen = await self._db.read(lambda tx: autonomy.facts(tx, key[0], fingerprint, key[1], level))
            self._seen[key] = moment, seen
        return seen

    async def _spent_today_usd(self, agent: str) -> float:
        """As it was seen a few seconds ago at most."""
        moment = self._db.clock.monotonic()
        seen_at, spent = self._spent.get(agent, (float("-inf"), 0.0))
        if moment - seen_at > SPENT_SECONDS:
            spent = await self._db.read(lambda tx: _spent_today_usd(tx, agent, self._calendar))
            self._spent[agent] = moment, spent
        return spent

    async def _is_first_time(self, proposal: Proposal) -> bool:
        """What has happened once does not happen for the first time again."""
        key = (proposal.agent, proposal.action)
        if key not in self._has_acted:
            found = await self._db.read(lambda tx: tx.fetch_one("has_acted", agent=key[0], action=key[1]))
            if found is None:
                return True
            self._has_acted.add(key)
        return False

    async def _record_denial(self, proposal: Proposal, verdict: Verdict, run_id: str) -> None:
        entry = audit.entry(
            "policy.denied",
            "run",
            run_id,
            principal=f"policy:{verdict.version}",
            tenant=proposal.tenant,
            reason=f"{proposal.kind} {proposal.action}: {verdict.told}",
            run_id=run_id,
        )
        await self._db.transaction(lambda tx: audit.record(tx, [entry]))


def _spent_today_usd(tx: Transaction, agent: str, calendar: Calendar) -> float:
    pocket = Pocket(f"agent:{agent}", budgets.period_of(tx, Period.DAY, calendar))
    balance = budgets.balances_of(tx, [pocket])[pocket]
    return (balance.settled.microusd + balance.reserved.microusd) / 1_000_000


def _with_autonomy(verdict: Verdict, trusted: AutonomyFacts, act: Act) -> Verdict:
    """What no policy asks about is asked about where the agent is not trusted with it yet."""
    why = trusted.why_ask(act)
    if why is None or verdict.decision is not Decision.ALLOW:
        return verdict
    return join(verdict, Verdict.ask(why).named("autonomy"))


def _act(proposal: Proposal, confidence: float | None) -> Act:
    """A question of an agent's own (`ctx.approve`) is about what it is about to do, whatever tool does it then."""
    cost = round(proposal.amount_usd * 1_000_000)
    return Act(Effect(proposal.effect), proposal.risk, cost, proposal.platform, confidence)


def explain(book: Rulebook, proposal: Proposal, facts: Facts) -> dict[str, Any]:
    """What would become of a proposal of an agent at that level, and what each rule that applies says; for JSON."""
    trusted = AutonomyFacts(Standing(Level(facts.autonomy)), calibrate(()))
    return told(_with_autonomy(book.verdict(proposal, facts), trusted, _act(proposal, facts.confidence)))


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict, ready for JSON."""
    shown = asdict(verdict)
    return shown | {"decision": str(verdict.decision), "reasons": [_told_reason(each) for each in verdict.reasons]}


def _told_reason(reason: Any) -> dict[str, str]:
    return {"rule": reason.rule, "decision": str(reason.decision), "text": reason.text}


def describe(book: Rulebook) -> dict[str, Any]:
    """The rules, ready for JSON."""
    limits = book.thresholds
    built_in = {
        "amount": f"ask if an action costs more than {limits.auto_spend_limit_usd:,.2f} USD",
        "recurring": "ask if it charges again and again",
        "risk": "ask one reviewer from risk tier 2, a senior one for tier 3, two different people for tier 4",
        "people": f"ask if more than {limits.people:,} people are affected",
        "confidence": f"ask if a confidence is stated and is under {limits.confidence_auto_threshold:.2f}",
        "data_class": f"deny data of denied_data_classes ({', '.join(limits.denied_data_classes) or 'none'})",
    }
    items = [{"name": name, "kind": "built_in", "rule": text, "reason": ""} for name, text in built_in.items()]
    items += [
        {"name": name, "kind": "settings", "rule": str(rule), "reason": rule.reason}
        for name, rule in book.rules.items()
    ]
    items += [
        {"name": name_of(each), "kind": "python", "rule": _first_line(each), "reason": ""} for each in book.functions
    ]
    return {"version": book.version, "items": items, "next": None}


def _first_line(function: PolicyFunction) -> str:
    text = (function.__doc__ or "").strip()
    return text.splitlines()[0] if text else "a function of the App"
