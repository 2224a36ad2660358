"""Calibration of an agent by what was decided: for the gate before effects, watched after each decision, shown."""

from __future__ import annotations

from typing import Any

from pilothouse.control import agents, audit
from pilothouse.domain.calibration import ERROR_LIMIT, LOOKED_AT, Calibration, Outcome, calibrate
from pilothouse.store.database import Database, Row, Transaction


def calibration_in(tx: Transaction, agent: str, *, since: int = 0) -> Calibration:
    """Of the latest 50 decided actions of an agent that stated a confidence, from an instant on.

    Approved without a change was right; edited, rejected and sent back was wrong.
    """
    rows = tx.fetch_all("latest_outcomes", agent=agent, since=since, limit=LOOKED_AT)
    return calibrate([Outcome(_confidence(row), bool(row["is_right"])) for row in rows])


def _confidence(row: Row) -> float:
    return round(float(row["confidence"]), 6)  # a column of four bytes gives 0.9 back as 0.8999999762


def watch(tx: Transaction, agent: str, *, principal: str) -> Calibration:
    """Looks at an agent after a decision, and records when its error passes the limit, up or down."""
    found = calibration_in(tx, agent)
    known = tx.fetch_one("calibration_row", agent=agent)
    was_off = bool(known and known["is_off"])
    if found.error is None and not was_off:
        return found
    tx.execute("set_calibration", agent=agent, error=found.error, is_off=int(found.is_off))
    if found.is_off != was_off:
        action = "calibration.off" if found.is_off else "calibration.restored"
        told = _told_error(found)
        audit.record(tx, [audit.entry(action, "agent", agent, principal=principal, reason=told)])
    return found


def _told_error(found: Calibration) -> str:
    error = "not measured" if found.error is None else f"{found.error:.1%}"
    return f"the calibration error of its latest {found.count} decided actions is {error}, the limit {ERROR_LIMIT:.0%}"


async def untold(db: Database) -> list[Row]:
    """The agents whose error has passed the limit and of whom nobody was told yet; from now on they are told."""
    if await db.read(lambda tx: tx.fetch_one("untold_calibrations")) is None:
        return []
    return await db.transaction(lambda tx: tx.fetch_all("tell_calibrations"))


async def show_calibration(db: Database, agent: str, *, threshold: float) -> dict[str, Any]:
    """An agent's calibration as people see it; `threshold` is the setting's. Raises NotFound."""

    def work(tx: Transaction) -> Calibration:
        agents.agent_in(tx, agent)
        return calibration_in(tx, agent)

    return public(agent, await db.read(work), threshold)


def public(agent: str, found: Calibration, threshold: float) -> dict[str, Any]:
    buckets = [
        {
            "low": bucket.low,
            "high": bucket.high,
            "count": bucket.count,
            "stated": bucket.stated if bucket.count else None,
            "observed": bucket.observed if bucket.count else None,
            "calibrated": found.calibrated(bucket.stated) if bucket.count else None,
        }
        for bucket in found.buckets
    ]
    return {
        "agent": agent,
        "decided": found.count,
        "calibration_error": found.error,
        "error_by_chance": found.chance,
        "error_limit": ERROR_LIMIT,
        "is_off": found.is_off,
        "threshold": threshold,
        "effective_threshold": found.threshold(threshold),
        "buckets": buckets,
    }
