"""Decided approvals as rows: what autonomy and calibration are measured by, without the verbs that decide them."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.clock import new_id
from pilothouse.store.database import Database, Row

STATES = {"approve": "approved", "edit": "approved", "reject": "rejected", "revise": "returned"}

INSERT = """
INSERT INTO approvals (id, run_id, key, round, tenant, agent, fingerprint, action, requested_by, title, recommendation,
    reasoning, risk_assessment, risk, confidence, cost_microusd, billing, people_affected, is_reversible, alternatives,
    arguments, arguments_hash, reasons, quorum, on_deadline, requested_at, state, decision, decided_by, decided_at,
    decided_hash)
VALUES (:id, :run_id, :key, :round, :tenant, :agent, :fingerprint, :action, 'run', 't', 'r', 'r', 'r', 1,
    :confidence, 0, 'none', 1, 1, '[]', '{}', 'h', '[]', 1, 'wait', :at, :state, :decision, 'grace', :at,
    :decided_hash)
"""


def decide(
    db: Database,
    *decisions: str,
    agent: str = "echo",
    fingerprint: str = "f",
    action: str = "send",
    confidence: float | None = 0.95,
    round: int = 1,
    decided_hash: str | None = None,
    run_id: str | None = None,
    tenant: str = "default",
    key: str = "send",
) -> None:
    """One approval for each decision, asked and decided now."""
    rows: Sequence[Row] = [
        {
            "id": new_id(),
            "run_id": run_id or new_id(),
            "round": round,
            "tenant": tenant,
            "key": key,
            "agent": agent,
            "fingerprint": fingerprint,
            "action": action,
            "confidence": confidence,
            "at": db.clock.now_us(),
            "state": STATES[decision],
            "decision": decision,
            "decided_hash": decided_hash,
        }
        for decision in decisions
    ]
    db.administer(lambda tx: [tx.execute(INSERT, **row) for row in rows])
