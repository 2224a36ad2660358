"""Named leases: at any time one process leads each chore, and another takes over when it stops renewing."""

from __future__ import annotations

from pilothouse.store.database import Database


async def hold(db: Database, name: str, holder: str, *, lease_us: int) -> bool:
    """Takes or extends the lease `name`; False while somebody else leads."""
    row = await db.transaction(lambda tx: tx.fetch_one("hold_lease", name=name, holder=holder, lease_us=lease_us))
    return row is not None


async def release(db: Database, name: str, holder: str) -> None:
    """Gives the lease up, so that another process need not wait for it to run out."""
    await db.transaction(lambda tx: tx.execute("release_lease", name=name, holder=holder))
