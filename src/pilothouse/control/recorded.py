"""What the audit tells of an agent that speaks against it: how often, since when; and what nothing tells of yet."""

from __future__ import annotations

from pilothouse.store.database import Transaction

INCIDENT: str | None = "incident.opened"
"""The audit's action of a critical incident that was opened; minor ones are noted. None: nothing records them."""

RUNAWAY: str | None = "run.runaway_suspected"
"""The audit's action of a run that was suspected of running away. None: nothing records them."""


def count(tx: Transaction, action: str | None, agent: str, *, since: int, after: int = 0) -> int | None:
    """How often the audit tells an action of an agent or its runs, from an instant on and after record number `after`.

    None where nothing records the action: then it is not measured.
    """
    if action is None:
        return None
    row = tx.fetch_one("count_recorded", action=action, agent=agent, since=since, after=after)
    return int(row["recorded"]) if row else 0
