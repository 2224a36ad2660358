"""Stability plans: started and stopped by people, moved from stage to stage by the scheduler, judged on figures.

While a plan is under way it sets the level of its agent's version and its cap on actions; each stage ends by the
database's clock and lasts its whole time, so that a scheduler that was away makes it longer and never skips one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control import agents, audit, autonomy, limits, recorded, runs, seals
from pilothouse.control.autonomy import Subject
from pilothouse.control.calibration import calibration_in
from pilothouse.domain.autonomy import ANY, Level, Standing
from pilothouse.domain.limits import Limit, Period, Unit
from pilothouse.domain.stability import (
    CHECKS_PER_DAY,
    DAY_US,
    STAGES,
    Figures,
    Finding,
    PlanState,
    Service,
    Stage,
    Verdict,
    assess,
    conclude,
    longest_gap,
    stage_of,
    told_findings,
)
from pilothouse.errors import Conflict, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction, Work

T = TypeVar("T")

SYSTEM = "system:stability"
PLANS_AT_ONCE = 100
SHOWN = 50
LONGEST_SCALE = 100.0
MOST_ACTIONS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """What is tried out. A day of the plan lasts `days_scale` days; the last stage has the target level and cap."""

    agent: str
    actions_per_day: int
    days_scale: float = 1.0
    target_level: Level = Level.AUTONOMOUS


@dataclass(frozen=True, slots=True)
class Moved:
    """A plan that has gone on or ended, for who tells of it."""

    agent: str
    state: str
    stage: int
    reason: str


# --- what people do ----------------------------------------------------------------------------


async def start_plan(db: Database, terms: PlanTerms, *, principal: str) -> dict[str, Any]:
    """Begins with the first stage. Raises NotFound, InvalidInput, Conflict where one is under way already."""
    _check_terms(terms)

    def work(tx: Transaction) -> dict[str, Any]:
        fingerprint = agents.agent_in(tx, terms.agent)["fingerprint"]
        autonomy.lock(tx, terms.agent)
        made = tx.fetch_one(
            "insert_plan",
            id=new_id(),
            agent=terms.agent,
            fingerprint=fingerprint,
            day_us=max(1, int(DAY_US * terms.days_scale)),
            target_level=terms.target_level,
            target_actions=terms.actions_per_day,
            started_by=principal,
            audit_from=audit.end_in(tx),
            before=payloads.encode(_before(tx, terms.agent, fingerprint)),
        )
        plan = tx.fetch_one("running_plan", agent=terms.agent)
        assert plan is not None
        if made is None:
            raise Conflict(
                f"a stability plan of agent {terms.agent!r} is under way in stage {plan['stage']}; "
                f"see `pilothouse stability status`, or stop it with `pilothouse stability stop {terms.agent}`"
            )
        _apply(tx, plan, STAGES[0])
        _record(tx, plan, "stability.started", principal, states=(None, STAGES[0].name))
        return _public(plan, _figures(tx, plan, broken_seals=0))

    return await _changed(db, work)


def _check_terms(terms: PlanTerms) -> None:
    if not 0 < terms.days_scale <= LONGEST_SCALE:
        raise InvalidInput(
            f"days_scale is {terms.days_scale:g}; it says how long a day of the plan lasts, in days: more than 0, at "
            f"most {LONGEST_SCALE:g}"
        )
    if not 1 <= terms.actions_per_day <= MOST_ACTIONS:
        raise InvalidInput(f"actions_per_day is {terms.actions_per_day}; the target cap is 1 to {MOST_ACTIONS:,}")
    if terms.target_level == Level.SUPERVISED:
        raise InvalidInput("target_level is supervised, where every agent may be without a plan")


async def stop_plan(db: Database, agent: str, *, reason: str | None = None, principal: str) -> dict[str, Any]:
    """Ends a plan without a verdict: levels and cap become what they were before. Raises NotFound."""

    def work(tx: Transaction) -> dict[str, Any]:
        agents.agent_in(tx, agent)
        autonomy.lock(tx, agent)
        plan = tx.fetch_one("running_plan", agent=agent)
        if plan is None:
            raise NotFound(
                f"no stability plan of agent {agent!r} is under way; `pilothouse stability status` lists them"
            )
        findings = assess(_figures(tx, plan, broken_seals=0))
        _restore_levels(tx, plan)
        _end(tx, plan, PlanState.STOPPED, findings, reason or "stopped by hand", principal)
        return _latest(tx, agent)

    return await _changed(db, work)


async def _changed(db: Database, work: Work[T]) -> T:
    """Runs that wait for room under a cap look again."""
    answer = await db.transaction(work)
    db.notify(runs.WAKE_RUNS)
    return answer


async def list_plans(db: Database) -> list[dict[str, Any]]:
    """Plans under way first, with the figures so far; then the latest that have ended."""

    def work(tx: Transaction) -> list[dict[str, Any]]:
        rows = tx.fetch_all("list_plans", agent=None, limit=SHOWN)
        return [_public(row, _figures_shown(tx, row)) for row in rows]

    return await db.read(work)


async def show_plan(db: Database, agent: str) -> dict[str, Any]:
    """The plan of an agent that is under way, or its latest: every criterion and its figures. Raises NotFound."""

    def work(tx: Transaction) -> dict[str, Any]:
        agents.agent_in(tx, agent)
        return _latest(tx, agent)

    return await db.read(work)


def _latest(tx: Transaction, agent: str) -> dict[str, Any]:
    rows = tx.fetch_all("list_plans", agent=agent, limit=1)
    if not rows:
        raise NotFound(f"agent {agent!r} has had no stability plan; `pilothouse stability start {agent}` begins one")
    return _public(rows[0], _figures_shown(tx, rows[0]))


# --- what the scheduler does -------------------------------------------------------------------


async def advance_plans(db: Database) -> list[Moved]:
    """Looks at the plans that are due: moves them on, ends them, or leaves them in their stage."""
    due = await db.read(lambda tx: tx.fetch_one("any_plan_due"))
    if due is None or due["stage"] is None:
        return []
    broken = 0
    if due["stage"] == len(STAGES):  # on a snapshot of its own: reading a whole audit may take long
        broken = len((await db.read(seals.verify_in)).findings)
    return await _changed(db, lambda tx: advance_in(tx, broken_seals=broken))


def advance_in(tx: Transaction, *, broken_seals: int) -> list[Moved]:
    """`advance_plans` in one transaction, with what was found wrong with the audit's seals."""
    plans = tx.fetch_all("due_plans", limit=PLANS_AT_ONCE)
    moved = [_advance(tx, plan, broken_seals) for plan in plans]
    return [each for each in moved if each is not None]


def _advance(tx: Transaction, plan: Row, broken_seals: int) -> Moved | None:
    autonomy.lock(tx, plan["agent"])
    stage = stage_of(plan["stage"])
    is_done = plan["now"] >= plan["stage_at"] + stage.length_us(plan["day_us"])
    findings = assess(_figures(tx, plan, broken_seals=broken_seals))
    lapsed = _lapsed(tx, plan)
    state = PlanState.FAILED if lapsed else conclude(findings, is_over=is_done and stage == STAGES[-1])
    if state != PlanState.RUNNING:
        return _conclude(tx, plan, state, findings, lapsed)
    if is_done:
        return _enter(tx, plan, stage_of(stage.number + 1), findings)
    _move(tx, plan, stage, plan["stage_at"], findings)
    return None


def _lapsed(tx: Transaction, plan: Row) -> str | None:
    """Why a plan cannot go on whatever its figures are."""
    if agents.agent_in(tx, plan["agent"])["fingerprint"] != plan["fingerprint"]:
        return "the agent's code has changed, and the plan was about the version before"
    row = tx.fetch_one("autonomy_row", **asdict(_version(plan)))
    if row is None or row["since"] != plan["started_at"]:
        return f"the version was demoted: {row['reason'] if row else 'its level was removed'}"
    return None


def _enter(tx: Transaction, plan: Row, stage: Stage, findings: Sequence[Finding]) -> Moved:
    _move(tx, plan, stage, plan["now"], findings)
    _apply(tx, plan, stage)
    states = (stage_of(plan["stage"]).name, stage.name)
    _record(tx, plan, "stability.stage_entered", SYSTEM, states=states)
    return Moved(plan["agent"], PlanState.RUNNING, stage.number, stage.name)


def _move(tx: Transaction, plan: Row, stage: Stage, stage_at: int, findings: Sequence[Finding]) -> None:
    ends_at = stage_at + stage.length_us(plan["day_us"])
    moved = tx.fetch_one(
        "move_plan",
        id=plan["id"],
        expected=plan["stage"],
        stage=stage.number,
        stage_at=stage_at,
        check_at=min(ends_at, plan["now"] + max(1, plan["day_us"] // CHECKS_PER_DAY)),
        report=_encode(findings),
    )
    assert moved is not None, "the plan is locked and was running"


def _conclude(tx: Transaction, plan: Row, state: PlanState, findings: Sequence[Finding], lapsed: str | None) -> Moved:
    """A version that has passed keeps the target level; any other goes back to supervised."""
    missed, unmeasured = (told_findings(findings, verdict) for verdict in (Verdict.MISSED, Verdict.NOT_MEASURED))
    reason = {
        PlanState.PASSED: "every criterion is met",
        PlanState.UNPROVEN: f"not measured: {unmeasured}",
    }.get(state, lapsed or missed)
    if state == PlanState.PASSED:  # actions that were demoted since its start stay so
        since = plan["started_at"]
        standing = Standing(Level(plan["target_level"]), since=since, counted_from=since)
    else:
        standing = Standing(Level.SUPERVISED, since=-1, counted_from=-1)
    told = f"its stability plan {'has passed' if state == PlanState.PASSED else 'has not passed'}: {reason}"
    autonomy.write(tx, _version(plan), standing, principal=SYSTEM, reason=told)
    _end(tx, plan, state, findings, reason, SYSTEM)
    return Moved(plan["agent"], state, plan["stage"], reason)


def _end(
    tx: Transaction, plan: Row, state: PlanState, findings: Sequence[Finding], reason: str, principal: str
) -> None:
    tx.fetch_one("end_plan", id=plan["id"], state=state, reason=reason, report=_encode(findings))
    before = payloads.decode(plan["before"])["limit"]
    limits.put_back_in(tx, _cap(plan["agent"]), before, principal=SYSTEM, reason=f"its stability plan is {state}")
    states = (stage_of(plan["stage"]).name, state)
    _record(tx, plan, f"stability.{state}", principal, states=states, reason=reason)


def _record(
    tx: Transaction,
    plan: Row,
    action: str,
    principal: str,
    *,
    states: tuple[str | None, str],
    reason: str | None = None,
) -> None:
    before, after = states
    told = f"version {plan['fingerprint'][:12]}" + (f": {reason}" if reason else "")
    audit.record(
        tx,
        [audit.entry(action, "agent", plan["agent"], principal=principal, before=before, after=after, reason=told)],
    )


# --- what a stage sets, and what is restored ---------------------------------------------------


def _version(plan: Row) -> Subject:
    return Subject(plan["agent"], plan["fingerprint"], ANY)


def _scope(agent: str) -> str:
    return f"agent:{agent}"


def _before(tx: Transaction, agent: str, fingerprint: str) -> dict[str, Row | None]:
    """What the plan is about to change."""
    return {
        "agent": tx.fetch_one("autonomy_row", agent=agent, fingerprint=ANY, action=ANY),
        "version": tx.fetch_one("autonomy_row", agent=agent, fingerprint=fingerprint, action=ANY),
        "limit": tx.fetch_one("limit_by_key", scope=_scope(agent), period=Period.DAY, unit=Unit.ACTIONS),
    }


def _apply(tx: Transaction, plan: Row, stage: Stage) -> None:
    """The stage's level for the version, supervised for all others of the agent, and the stage's cap.

    The level counts from the start of the plan on, so that an action that was demoted meanwhile stays so.
    """
    told = f"stage {stage.number} of its stability plan: {stage.name}"
    started = plan["started_at"]
    standing = Standing(
        level=stage.level or Level(plan["target_level"]),
        since=started,
        counted_from=started,
        asks_outward=stage.asks_outward,
        least_confidence=stage.least_confidence,
    )
    autonomy.write(tx, _version(plan), standing, principal=SYSTEM, reason=told)
    everywhere = Standing(Level.SUPERVISED, since=started, counted_from=started)
    autonomy.write(tx, Subject(plan["agent"], ANY, ANY), everywhere, principal=SYSTEM, reason="it has a stability plan")
    limits.set_in(tx, _cap(plan["agent"], stage.cap(plan["target_actions"])), principal=SYSTEM, reason=told)


def _restore_levels(tx: Transaction, plan: Row) -> None:
    before = payloads.decode(plan["before"])
    agent, everywhere, version = plan["agent"], Subject(plan["agent"], ANY, ANY), _version(plan)
    for subject, row in ((everywhere, before["agent"]), (version, before["version"])):
        if row is None:
            tx.execute("delete_autonomy", agent=agent, fingerprint=subject.fingerprint, action=ANY)
        else:
            tx.execute("set_autonomy", **row)


def _cap(agent: str, amount: int | None = None) -> Limit:
    return Limit(_scope(agent), Period.DAY, Unit.ACTIONS, amount)


# --- figures -----------------------------------------------------------------------------------


def _figures(tx: Transaction, plan: Row, *, broken_seals: int) -> Figures:
    """What was seen since the plan began."""
    agent, since, after = plan["agent"], plan["started_at"], plan["audit_from"]
    calibration = calibration_in(tx, agent, since=since)
    actions, memos = (tx.fetch_one(name, agent=agent, since=since) or {} for name in ("count_actions", "first_memos"))
    unrecorded = tx.fetch_one("count_unrecorded_effects", agent=agent, since=since) or {}
    told = payloads.decode(plan["scores"]) if plan["scores"] else {"scores": [], "baseline": None}
    return Figures(
        critical_incidents=recorded.count(tx, recorded.INCIDENT, agent, since=since, after=after),
        runaways=recorded.count(tx, recorded.RUNAWAY, agent, since=since, after=after),
        downtime_us=longest_gap(_services(tx, agent, since), start=since, end=plan["now"]),
        actions=int(actions["done"]) + int(unrecorded["unrecorded"]),
        untraced=int(actions["untraced"]) + int(unrecorded["unrecorded"]),
        broken_seals=broken_seals,
        scores=tuple(told["scores"]),
        baseline=told["baseline"],
        calibration_error=calibration.error,
        outcomes=calibration.count,
        memos=int(memos["decided"]),
        approved_memos=int(memos["approved"]),
    )


def _services(tx: Transaction, agent: str, since: int) -> list[Service]:
    rows = tx.fetch_all("workers_since", since=since)
    return [_service(row) for row in rows if agent in payloads.decode(row["agents"])]


def _service(row: Row) -> Service:
    """A lost worker has served up to its last renewal; what it did after nobody can know."""
    if row["state"] == "stopped":
        return Service(row["started_at"], row["stopped_at"], was_lost=False)
    if row["state"] == "lost" or row["lease_until"] < row["now"]:
        return Service(row["started_at"], row["renewed_at"], was_lost=True)
    return Service(row["started_at"], row["now"], was_lost=False)


# --- how a plan looks --------------------------------------------------------------------------


def _encode(findings: Sequence[Finding]) -> str:
    return payloads.encode([asdict(finding) for finding in findings])


def _figures_shown(tx: Transaction, plan: Row) -> Figures | None:
    """Those of a plan under way; one that has ended keeps its findings."""
    return _figures(tx, plan, broken_seals=0) if plan["state"] == PlanState.RUNNING else None


def _public(plan: Row, figures: Figures | None) -> dict[str, Any]:
    """A plan as people see it."""
    stage, day_us = stage_of(plan["stage"]), plan["day_us"]
    is_running = plan["state"] == PlanState.RUNNING
    findings = [asdict(each) for each in assess(figures)] if figures else payloads.decode(plan["report"])
    days = (plan["now"] - plan["started_at"]) / day_us
    return {
        "agent": plan["agent"],
        "fingerprint": plan["fingerprint"],
        "state": plan["state"],
        "stage": stage.number,
        "stages": len(STAGES),
        "stage_name": stage.name,
        "days": f"{stage.first_day}-{stage.last_day}",
        "day_seconds": day_us / 1_000_000,
        "days_passed": round(days, 3) if is_running else None,
        "level": stage.level or plan["target_level"],
        "actions_per_day": stage.cap(plan["target_actions"]),
        "target_level": plan["target_level"],
        "target_actions_per_day": plan["target_actions"],
        "started_at": plan["started_at"],
        "started_by": plan["started_by"],
        "stage_ends_at": plan["stage_at"] + stage.length_us(day_us) if is_running else None,
        "ended_at": plan["ended_at"],
        "reason": plan["reason"],
        "findings": findings,
    }
