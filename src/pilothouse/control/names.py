"""Names that are in use: what a field may suggest. Read from counters and registrations, never from history."""

from __future__ import annotations

from typing import NamedTuple

from pilothouse.control import agents, counters
from pilothouse.store.database import Database, Transaction

SHOWN = 200
"""Names of one kind, at most."""


class Names(NamedTuple):
    """In order; `versions` are the fingerprints that are registered."""

    agents: list[str]
    versions: list[str]
    tools: list[str]
    tenants: list[str]


async def known_names(db: Database) -> Names:
    return await db.read(_known)


def _known(tx: Transaction) -> Names:
    registered = agents.list_in(tx)
    tools = {row["label"].rpartition("/")[0] for row in counters.read(tx, "tool_calls")}
    tenants = [row["name"] for row in tx.fetch_all("queue_depths") if row["kind"] == "tenant"]
    return Names(
        [row["name"] for row in registered][:SHOWN],
        sorted({row["fingerprint"] for row in registered})[:SHOWN],
        sorted(tools)[:SHOWN],
        sorted(tenants)[:SHOWN],
    )
