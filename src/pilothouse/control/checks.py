"""`db check`: the invariants of the run log, each proved by a query that must find nothing."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.control import seals
from pilothouse.domain.seals import Finding
from pilothouse.store.database import Database, Row, Transaction

FOUND_SHOWN = 20

ANY_GRACE_US = 2**60
"""For a copy, whose workers are elsewhere: their leases may have run out."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """`looked_at` names the table whose rows it speaks of."""

    name: str
    statement: str
    looked_at: str
    needs_grace: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an invariant holds: how many rows of `looked_at` were `checked`, and what broke it (20 at most)."""

    name: str
    looked_at: str
    checked: int
    found: list[Row]

    @property
    def holds(self) -> bool:
        return not self.found


INVARIANTS = (
    Invariant("no running run without a live lease", "check_running_without_lease", "runs", needs_grace=True),
    Invariant("no running attempt beside its run's latest", "check_attempt_not_settled", "attempts"),
    Invariant("attempts are numbered without a gap", "check_attempts_counted", "runs"),
    Invariant("every attempt was claimed once and settled once", "check_settled_once", "attempts"),
    Invariant("no checkpoint by a foreign attempt", "check_foreign_checkpoint", "checkpoints", needs_grace=True),
    Invariant("a run has an end exactly when it has ended", "check_ended_without_time", "runs"),
    Invariant("no waiting run whose wait is over", "check_missed_wake", "runs"),
    Invariant("no waiting run that waits for nothing", "check_wait_without_end", "runs"),
    Invariant("run counters equal the rows they count", "check_run_counters", "runs"),
    Invariant("counters of tenants equal the rows they count", "check_tenant_counters", "runs"),
    Invariant("every large payload that is referred to is there", "check_lost_blobs", "runs"),
    Invariant("every call of a model or a tool is a step's", "check_stray_calls", "checkpoints"),
    Invariant("every balance is the sum of its ledger entries", "check_balances", "balances"),
    Invariant("every reservation is booked once, and settled once", "check_reservations", "reservations"),
    Invariant("no run that has ended still asks a person", "check_stray_approvals", "approvals"),
    Invariant("every approved approval has the votes it needs", "check_votes", "approvals"),
    Invariant("attempt counters equal the rows they count", "check_attempt_counters", "attempts"),
    Invariant("nothing is left of an erased tenant", "check_erased_tenants", "erasures"),
)


async def check(db: Database, *, grace_us: int) -> list[Verdict]:
    """Proves every invariant on one snapshot. `grace_us` is how long a lease may have run out unreaped."""
    return await db.read(lambda tx: verdicts(tx, grace_us))


def verdicts(tx: Transaction, grace_us: int) -> list[Verdict]:
    """The invariants on what this transaction sees."""
    sizes = tx.fetch_one("check_sizes") or {}
    sealed = seals.verify_in(tx)
    found = [{"id": f"seal {each.seal}", "found": _told(each)} for each in sealed.findings[:FOUND_SHOWN]]
    return [
        *_proved(tx, sizes, grace_us),
        Verdict("no sealed audit record was changed, removed or inserted", "audit", sealed.records, found),
    ]


def _told(finding: Finding) -> str:
    return finding.problem if finding.seq is None else f"audit record {finding.seq} was {finding.problem}"


def _proved(tx: Transaction, sizes: Row, grace_us: int) -> list[Verdict]:
    return [
        Verdict(invariant.name, invariant.looked_at, int(sizes[invariant.looked_at]), _broken(tx, invariant, grace_us))
        for invariant in INVARIANTS
    ]


def _broken(tx: Transaction, invariant: Invariant, grace_us: int) -> list[Row]:
    if invariant.needs_grace:
        return tx.fetch_all(invariant.statement, limit=FOUND_SHOWN, grace_us=grace_us)
    return tx.fetch_all(invariant.statement, limit=FOUND_SHOWN)
