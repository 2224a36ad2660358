"""The database's clock, which is what several processes compare their instants with."""

from __future__ import annotations

from pilothouse.store.database import Transaction


def now(tx: Transaction) -> int:
    """The instant of this transaction's database, in microseconds."""
    row = tx.fetch_one("current_instant")
    assert row is not None
    return int(row["now"])
