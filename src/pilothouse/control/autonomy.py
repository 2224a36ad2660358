"""Autonomy: the level of each agent's version for each action, the evidence for more, and what takes it away.

Promotion is a person's verb and needs evidence; demotion happens in the transaction of the decision that calls for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse import payloads
from pilothouse.control import agents, audit, incidents
from pilothouse.control.calibration import calibration_in, watch
from pilothouse.domain.autonomy import (
    ANY,
    LOW_SCORES_THAT_DEMOTE,
    RECENT,
    SUPERVISED_ACTIONS,
    AutonomyFacts,
    Evidence,
    Level,
    Standing,
    demands_demotion,
    is_above,
    is_declining,
    next_level,
    standing_of,
)
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

SHOWN = 500
"""Versions and actions that one list shows, at most."""

SYSTEM = "system:autonomy"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a level is for: an action (or `*`) of a version of an agent."""

    agent: str
    fingerprint: str
    action: str

    def told(self) -> str:
        what = "every action" if self.action == ANY else f"action {self.action!r}"
        return f"{what} of version {self.fingerprint[:12]}"


@dataclass(frozen=True, slots=True)
class LevelChange:
    """What a person asks for: another level (None: the next one) for an action (`*`: all) of a version of an agent.

    `fingerprint` may be the beginning of one (None: the version that is registered).
    """

    agent: str
    action: str = ANY
    to: Level | None = None
    fingerprint: str | None = None


# --- what the gate before an effect reads ------------------------------------------------------


def level_of(tx: Transaction, agent: str, fingerprint: str, action: str, default: Level) -> Standing:
    """What counts for an action now. `default` is the setting's level for new agents and new versions."""
    rows = tx.fetch_all("standings", agent=agent, fingerprint=fingerprint, action=action)
    return standing_of([_standing(row) for row in rows], default)


def _standing(row: Row) -> Standing:
    values = {name: row[name] for name in Standing.__dataclass_fields__}
    return Standing(**{**values, "level": Level(row["level"]), "asks_outward": bool(row["asks_outward"])})


def facts(tx: Transaction, agent: str, fingerprint: str, action: str, default: Level) -> AutonomyFacts:
    """Level and calibration of an action, for the verdict on an effect."""
    return AutonomyFacts(level_of(tx, agent, fingerprint, action, default), calibration_in(tx, agent))


def evidence(tx: Transaction, subject: Subject, counted_from: int) -> Evidence:
    """What the decisions since an instant show."""
    whose = {"agent": subject.agent, "fingerprint": subject.fingerprint, "action": subject.action}
    counts = tx.fetch_one("count_decisions", since=counted_from, **whose)
    assert counts is not None
    return Evidence(
        decided=int(counts["decided"]),
        approved=int(counts["approved"]),
        recent=_recent(tx, subject),
        calibration_error=calibration_in(tx, subject.agent).error,
        critical_incidents=incidents.critical_open(tx, subject.agent, counted_from),
    )


def _recent(tx: Transaction, subject: Subject) -> tuple[str, ...]:
    """The latest decisions, the newest first."""
    whose = {"agent": subject.agent, "fingerprint": subject.fingerprint, "action": subject.action}
    return tuple(row["decision"] for row in tx.fetch_all("latest_decisions", since=0, limit=RECENT, **whose))


# --- what takes autonomy away ------------------------------------------------------------------


def review(tx: Transaction, agent: str, fingerprint: str, action: str, *, default: Level = Level.ASSISTED) -> bool:
    """Looks at an action after each decision, in its transaction; whether it was demoted.

    Two rejections of the latest ten decisions return it to supervised. The agent's calibration is watched too.
    """
    watch(tx, agent, principal=SYSTEM)
    subject = Subject(agent, fingerprint, action)
    if not demands_demotion(_recent(tx, subject)):
        return False
    lock(tx, agent)
    standing = level_of(tx, agent, fingerprint, action, default)
    if standing.level == Level.SUPERVISED:
        return False
    rejected = _recent(tx, subject).count("reject")
    reason = f"{rejected} of its latest {RECENT} decided actions were rejected"
    _set(tx, subject, standing, Level.SUPERVISED, principal=SYSTEM, reason=reason)
    return True


def lock(tx: Transaction, agent: str) -> None:
    """Lets one change of an agent's autonomy follow the other."""
    tx.fetch_many("lock_agents", [{"name": agent}])


def _set(tx: Transaction, subject: Subject, before: Standing, level: Level, *, principal: str, reason: str) -> None:
    """Changes a level and says so. A demotion lets the evidence begin anew."""
    is_demotion = is_above(before.level, level)
    write(
        tx,
        subject,
        Standing(level, counted_from=-1 if is_demotion else before.counted_from, since=-1),
        principal=principal,
        reason=reason,
    )
    action = "autonomy.demoted" if is_demotion else "autonomy.promoted"
    told = f"{subject.told()}: {reason}"
    audit.record(
        tx,
        [
            audit.entry(
                action,
                "agent",
                subject.agent,
                principal=principal,
                before=before.level,
                after=level,
                reason=told,
            )
        ],
    )


def write(tx: Transaction, subject: Subject, standing: Standing, *, principal: str, reason: str) -> None:
    """Sets what counts for a subject. Instants below 0 stand for now."""
    tx.execute(
        "set_autonomy",
        agent=subject.agent,
        fingerprint=subject.fingerprint,
        action=subject.action,
        level=standing.level,
        asks_outward=int(standing.asks_outward),
        least_confidence=standing.least_confidence,
        since=None if standing.since < 0 else standing.since,
        counted_from=None if standing.counted_from < 0 else standing.counted_from,
        set_by=principal,
        reason=reason,
    )


async def report_scores(
    db: Database, agent: str, scores: Sequence[float], *, baseline: float, default: Level, principal: str
) -> bool:
    """Takes the scores of an agent's latest runs, in order of time; whether the agent was demoted for them.

    Five in a row below the baseline return every action of its version to supervised. A stability plan that is under
    way keeps the figures. Raises NotFound, InvalidInput.
    """
    if not scores or not all(map(math.isfinite, (*scores, baseline))):
        raise InvalidInput("scores are one or more finite numbers, and so is their baseline")

    def work(tx: Transaction) -> bool:
        fingerprint = agents.agent_in(tx, agent)["fingerprint"]
        figures = payloads.encode({"scores": list(scores), "baseline": baseline})
        tx.execute("score_plan", agent=agent, fingerprint=fingerprint, scores=figures)
        told = f"scores {', '.join(f'{score:g}' for score in scores)} against a baseline of {baseline:g}"
        audit.record(tx, [audit.entry("agent.scored", "agent", agent, principal=principal, reason=told)])
        if not is_declining(scores, baseline):
            return False
        reason = f"its latest {LOW_SCORES_THAT_DEMOTE} scores lie below the baseline of {baseline:g}"
        return _demote_version(tx, Subject(agent, fingerprint, ANY), default, reason)

    return await db.transaction(work)


def lose_to_drift(tx: Transaction, agent: str, text: str, *, default: Level) -> bool:
    """Looks at an agent as an alert of drift about it begins to fire, in its transaction; whether it was demoted.

    Every action of its registered version returns to supervised, because what was decided about it shows how it was.
    """
    registered = tx.fetch_many("agents_by_name", [{"name": agent}])
    subjects = [Subject(agent, row["fingerprint"], ANY) for row in registered]
    return any(_demote_version(tx, subject, default, f"it has drifted: {text}") for subject in subjects)


def _demote_version(tx: Transaction, subject: Subject, default: Level, reason: str) -> bool:
    """Returns every action of a version to supervised, unless all of them are."""
    lock(tx, subject.agent)
    levels = [standing for standing in _standings(tx, subject, default) if standing.level != Level.SUPERVISED]
    if not levels:
        return False
    highest = max(levels, key=lambda standing: is_above(standing.level, Level.ASSISTED))
    _set(tx, subject, highest, Level.SUPERVISED, principal=SYSTEM, reason=reason)
    return True


def _standings(tx: Transaction, version: Subject, default: Level) -> list[Standing]:
    """What counts for each action of a version of which anything is known, and for those of which nothing is."""
    rows = tx.fetch_all("autonomy_subjects", agent=version.agent, limit=SHOWN)
    actions = {ANY, *(row["action"] for row in rows if row["fingerprint"] == version.fingerprint)}
    return [level_of(tx, version.agent, version.fingerprint, action, default) for action in sorted(actions)]


# --- what people do ----------------------------------------------------------------------------


async def promote(db: Database, asked: LevelChange, *, default: Level, principal: str) -> dict[str, Any]:
    """Lets an action do more on its own.

    Raises NotFound, Conflict where the evidence does not suffice, with what is missing, where a stability plan sets
    the levels, and where there is nothing above.
    """

    def work(tx: Transaction) -> dict[str, Any]:
        agent, subject = asked.agent, _subject(tx, asked)
        lock(tx, agent)
        before = level_of(tx, agent, subject.fingerprint, asked.action, default)
        level = asked.to or next_level(before.level)
        if not is_above(level, before.level):
            raise Conflict(f"{subject.told()} of agent {agent!r} is {before.level} already; nothing was changed")
        if tx.fetch_one("running_plan", agent=agent) is not None:
            raise Conflict(f"a stability plan sets the levels of agent {agent!r}; `pilothouse stability stop {agent}`")
        shown = evidence(tx, subject, before.counted_from)
        missing = shown.missing()
        if missing:
            raise Conflict(
                f"{subject.told()} of agent {agent!r} stays {before.level}, because evidence is missing: "
                f"{'; '.join(missing)}"
            )
        _set(tx, subject, before, level, principal=principal, reason=_told_evidence(shown))
        return _shown(tx, subject, default)

    return await db.transaction(work)


def _told_evidence(shown: Evidence) -> str:
    return (
        f"{shown.approved} of {shown.decided} approved without a change, at least {shown.bound:.1%}, "
        f"calibration error {shown.calibration_error or 0:.1%}"
    )


async def demote(db: Database, asked: LevelChange, *, reason: str, default: Level, principal: str) -> dict[str, Any]:
    """Takes autonomy away, all of it unless a level is named. Raises NotFound, Conflict where none is left to take."""
    to = asked.to or Level.SUPERVISED

    def work(tx: Transaction) -> dict[str, Any]:
        subject = _subject(tx, asked)
        lock(tx, asked.agent)
        standings = (
            _standings(tx, subject, default)
            if asked.action == ANY
            else [level_of(tx, asked.agent, subject.fingerprint, asked.action, default)]
        )
        above = [standing for standing in standings if is_above(standing.level, to)]
        if not above:
            raise Conflict(
                f"{subject.told()} of agent {asked.agent!r} is {to} or stricter already; nothing was changed"
            )
        _set(tx, subject, above[0], to, principal=principal, reason=reason)
        return _shown(tx, subject, default)

    return await db.transaction(work)


def _subject(tx: Transaction, asked: LevelChange) -> Subject:
    """Raises NotFound for an agent or a version that nobody knows."""
    agent, fingerprint, action = asked.agent, asked.fingerprint, asked.action
    registered = agents.agent_in(tx, agent)["fingerprint"]
    if fingerprint in (None, registered):
        return Subject(agent, registered, action)
    known = {row["fingerprint"] for row in tx.fetch_all("autonomy_subjects", agent=agent, limit=SHOWN)} - {ANY}
    found = sorted(each for each in {*known, registered} if fingerprint and each.startswith(fingerprint))
    if len(found) != 1:
        versions = ", ".join(sorted(each[:12] for each in {*known, registered}))
        raise NotFound(f"agent {agent!r} has no version {fingerprint!r} of its own; known: {versions}")
    return Subject(agent, found[0], action)


async def list_autonomy(db: Database, agent: str | None = None, *, default: Level) -> list[dict[str, Any]]:
    """Every version and action of which anything is known, with its level and the evidence. Raises NotFound."""

    def work(tx: Transaction) -> list[dict[str, Any]]:
        known = [agents.agent_in(tx, agent)] if agent else agents.list_in(tx)
        rows = tx.fetch_all("autonomy_subjects", agent=agent, limit=SHOWN)
        found = {Subject(row["agent"], row["fingerprint"], row["action"]) for row in rows}
        found |= {Subject(row["name"], row["fingerprint"], ANY) for row in known}
        shown = sorted(
            (each for each in found if each.fingerprint != ANY),
            key=lambda each: (each.agent, each.fingerprint, each.action),
        )
        return [_shown(tx, subject, default) for subject in shown]

    return await db.read(work)


def _shown(tx: Transaction, subject: Subject, default: Level) -> dict[str, Any]:
    """A subject as people see it; what is missing for more is told of single actions only."""
    standing = level_of(tx, subject.agent, subject.fingerprint, subject.action, default)
    row = tx.fetch_one("autonomy_row", agent=subject.agent, fingerprint=standing.fingerprint, action=standing.action)
    shown = {
        "agent": subject.agent,
        "fingerprint": subject.fingerprint,
        "action": subject.action,
        "level": standing.level,
        "since": row["since"] if row else None,
        "set_by": row["set_by"] if row else None,
        "reason": row["reason"] if row else None,
    }
    return shown | _shown_evidence(tx, subject, standing)


def _shown_evidence(tx: Transaction, subject: Subject, standing: Standing) -> dict[str, Any]:
    if subject.action == ANY:
        return {"evidence": None, "missing": []}
    found = evidence(tx, subject, standing.counted_from)
    return {
        "evidence": {
            "decided": found.decided,
            "needed": SUPERVISED_ACTIONS,
            "approved": found.approved,
            "approval_rate": found.rate,
            "lower_bound": found.bound,
            "calibration_error": found.calibration_error,
            "critical_incidents": found.critical_incidents,
        },
        "missing": [] if standing.level == Level.AUTONOMOUS else found.missing(),
    }
