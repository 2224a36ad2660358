"""Named leases: at any time one process leads each chore, and another takes over when it stops renewing."""

from __future__ import annotations

from typing import NamedTuple

from pilothouse.store.database import Database, Transaction

PROOF = "readiness"
"""No chore's: the row by which readiness proves that the store takes writes."""


async def hold(db: Database, name: str, holder: str, *, lease_us: int) -> bool:
    """Takes or extends the lease `name`; False while somebody else leads."""
    row = await db.transaction(lambda tx: tx.fetch_one("hold_lease", name=name, holder=holder, lease_us=lease_us))
    return row is not None


class Turn(NamedTuple):
    """A chore and how long ago its leader took a turn, in seconds; `late_seconds` ago its lease has run out.

    None for the age: it took none yet that is known of.
    """

    chore: str
    age_seconds: float | None
    late_seconds: float

    @property
    def is_late(self) -> bool:
        return self.late_seconds > 0


def turns_in(tx: Transaction) -> list[Turn]:
    """Every chore that somebody leads, or did until it died."""
    return [
        Turn(
            row["name"],
            max(0, row["now"] - row["held_at"]) / 1_000_000 if row["held_at"] else None,
            max(0, row["now"] - row["lease_until"]) / 1_000_000,
        )
        for row in tx.fetch_all("list_leases")
        if row["name"] != PROOF
    ]


async def prove_writable(db: Database) -> None:
    """Writes something, durably. Raises StoreError where nothing can be written."""
    await db.transaction(lambda tx: tx.execute("prove_writable", name=PROOF))


async def release(db: Database, name: str, holder: str) -> None:
    """Gives the lease up, so that another process need not wait for it to run out."""
    await db.transaction(lambda tx: tx.execute("release_lease", name=name, holder=holder))
