"""The seal of the audit: a leader seals batches of records; anyone can verify that none was changed since."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from pilothouse.clock import isoformat
from pilothouse.control import audit
from pilothouse.control.audit import Horizon
from pilothouse.control.instants import now
from pilothouse.domain.seals import (
    Finding,
    Record,
    Seal,
    Tombstone,
    check_chain,
    check_records,
    digest_of,
    make_seal,
    read_tombstones,
)
from pilothouse.errors import ConfigError
from pilothouse.store.database import Database, Row, Transaction

BATCH = 5_000
"""Records of one seal, at most."""

SEALS_AT_ONCE = 100
"""How many seals one transaction prunes, at most."""

ERASED_ACTION = "tenant.records_erased"
"""What a record that vouches for tombstones says was done."""

FINDINGS_SHOWN = 100
MAX_SEQ = 2**62


class Sealer:
    """Seals what is final, one batch at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._horizon = Horizon(db)

    async def seal(self) -> None:
        last = await self._horizon.advance()
        while await self._db.transaction(partial(seal_batch, up_to=last)):
            pass


def seal_batch(tx: Transaction, *, up_to: int) -> bool:
    """Seals the records after the last seal, as far as they fit into one batch; False where there are none."""
    previous = _last_seal(tx)
    first_seq = previous.last_seq + 1 if previous else 1
    if up_to < first_seq:
        return False
    records = tx.fetch_all("audit_span", first_seq=first_seq, last_seq=up_to, limit=BATCH)
    if not records:
        return False
    is_full = len(records) == BATCH
    seal = make_seal(
        records,
        number=previous.number + 1 if previous else 1,
        previous=previous,
        last_seq=records[-1]["seq"] if is_full else up_to,
        sealed_at=now(tx),
    )
    facts = asdict(seal)
    del facts["pruned_through"]
    tx.execute("insert_seal", **facts)
    return is_full


def prune_seals(tx: Transaction, *, keep_us: int) -> int:
    """Takes the records of the oldest seals out of the audit, as far as all of a seal's are older; of how many seals.

    The seals stay, and with them the chain; a record says what left.
    """
    before, old, size = now(tx) - keep_us, list[Row](), 0
    for seal in tx.fetch_all("kept_seals", limit=SEALS_AT_ONCE):
        size += seal["records"]
        if seal["through"] >= before or (old and size > BATCH):
            break
        old.append(seal)
    if old:
        _prune(tx, old)
    return len(old)


def _prune(tx: Transaction, old: Sequence[Row]) -> None:
    first, last = old[0], old[-1]
    through = max(seal["through"] for seal in old)
    tx.execute("prune_seals", first=first["number"], last=last["number"], through=through)
    tx.execute("prune_audit", first_seq=first["first_seq"], last_seq=last["last_seq"])
    tx.execute("prune_tombstones", last_seq=last["last_seq"])
    reason = f"{sum(seal['records'] for seal in old)} records, up to number {last['last_seq']}"
    which, principal = f"seals {first['number']} to {last['number']}", "system:retention"
    audit.record(tx, [audit.entry("audit.pruned", "retention", which, principal=principal, reason=reason)])


def _last_seal(tx: Transaction) -> Seal | None:
    row = tx.fetch_one("last_seal")
    return None if row is None else Seal(**row)


@dataclass(frozen=True, slots=True)
class Erased:
    """How many records of a tenant were erased, when last (ISO 8601), and by whom."""

    tenant: str
    records: int
    at: str
    by: str


@dataclass(slots=True)
class Verification:
    """What verifying came to. `unsealed` records came after the last seal; `head` is that seal's hash.

    `records` were there to be verified; `pruned` ones have left the audit, and only their seals are left. `erased` says
    of which tenants records were erased, in the words of the records that vouch for it.
    """

    seals: int = 0
    records: int = 0
    pruned: int = 0
    unsealed: int = 0
    head: str | None = None
    findings: list[Finding] = field(default_factory=list)
    has_anchor: bool = False
    erased: list[Erased] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.findings


async def verify(db: Database, *, anchor: str | None = None) -> Verification:
    """Holds the whole audit against its seals. `anchor` is the hash of a seal that was noted elsewhere before."""
    return await db.read(lambda tx: verify_in(tx, anchor=anchor))


def verify_in(tx: Transaction, *, anchor: str | None = None) -> Verification:
    vouchers = tx.fetch_all("erasure_vouchers", action=ERASED_ACTION)
    digests = _digests(vouchers)

    def records_of(seal: Seal) -> _Batch:
        records = tx.fetch_all("audit_span", first_seq=seal.first_seq, last_seq=seal.last_seq, limit=10 * BATCH)
        texts = tx.fetch_all("tombstones_of_span", first_seq=seal.first_seq, last_seq=seal.last_seq)
        return records, _vouched((row["tombstones"] for row in texts), digests)

    done = _verify(_seals(tx), records_of, anchor)
    after = _last_seal(tx)
    last = after.last_seq if after else 0
    done.unsealed = len(tx.fetch_all("audit_span", first_seq=last + 1, last_seq=MAX_SEQ, limit=10 * BATCH))
    done.erased = _summed(vouchers)
    return done


_Batch = tuple[Iterable[Record], Mapping[int, Tombstone]]
"""The records of a seal, and the tombstones that are vouched for."""


def voucher(tenant: str, tombstones: str, count: int, *, principal: str) -> audit.AuditRow:
    """The record that vouches for tombstones."""
    reason = f"{count} records, digest {digest_of(tombstones)}"
    return audit.entry(ERASED_ACTION, "tenant", tenant, principal=principal, reason=reason)


_VOUCHED = re.compile(r"(?P<count>\d+) records, digest (?P<digest>[0-9a-f]{64})")


def _digests(vouchers: Iterable[Record]) -> frozenset[str]:
    return frozenset(found["digest"] for row in vouchers if (found := _VOUCHED.fullmatch(str(row["reason"]))))


def _vouched(texts: Iterable[str], digests: frozenset[str]) -> dict[int, Tombstone]:
    found: dict[int, Tombstone] = {}
    for text in texts:
        if digest_of(text) in digests:
            found |= read_tombstones(text)
    return found


def _summed(vouchers: Iterable[Record]) -> list[Erased]:
    """By tenant and principal; `vouchers` come in their order."""
    by_owner: dict[tuple[str, str], Erased] = {}
    for row in vouchers:
        if found := _VOUCHED.fullmatch(str(row["reason"])):
            owner = (row["entity_id"], row["principal"])
            before = by_owner[owner].records if owner in by_owner else 0
            by_owner[owner] = Erased(owner[0], before + int(found["count"]), isoformat(row["at"]), owner[1])
    return list(by_owner.values())


def _seals(tx: Transaction) -> Iterator[Seal]:
    number = 0
    while rows := tx.fetch_all("seals_after", number=number, limit=100):
        yield from (Seal(**row) for row in rows)
        number = rows[-1]["number"]


def _verify(seals: Iterable[Seal], records_of: Callable[[Seal], _Batch], anchor: str | None) -> Verification:
    done, previous = Verification(), None
    for seal in seals:
        broken = check_chain(seal, previous)
        done.findings += broken or check_records(seal, *records_of(seal))
        done.seals += 1
        if seal.pruned_through is None:
            done.records += seal.records
        else:
            done.pruned += seal.records
        done.head, previous = seal.hash, seal
        done.has_anchor = done.has_anchor or seal.hash == anchor
    if anchor is not None and not done.has_anchor:
        done.findings.append(Finding(done.seals, None, f"no seal has the hash {anchor}: the seals from it on are gone"))
    del done.findings[FINDINGS_SHOWN:]
    return done


# --- a copy elsewhere --------------------------------------------------------------------------


async def export(db: Database, write: Callable[[str], object], *, after_seal: int = 0) -> int:
    """Writes JSON lines: the seals after number `after_seal`, each with its records, then what is not sealed yet.

    The tombstones of erased records come before the seal that covers them. Returns how many lines.
    """
    found = await db.read(partial(_batch_after, number=after_seal - 1)) if after_seal else None
    number, last, lines = after_seal, found[0].last_seq if found else 0, 0
    told: set[str] = set()
    while found := await db.read(partial(_batch_after, number=number)):
        seal, texts, rows = found
        new = [{"tombstones": text} for text in texts if text not in told]
        told.update(texts)
        number, last = seal.number, seal.last_seq
        lines += _write_rows(write, [*new, {"seal": asdict(seal)}, *rows])
    while rows := await db.read(partial(_records_after, seq=last)):
        last = rows[-1]["seq"]
        lines += _write_rows(write, rows)
    return lines


def _batch_after(tx: Transaction, number: int) -> tuple[Seal, list[str], list[Row]] | None:
    rows = tx.fetch_all("seals_after", number=number, limit=1)
    if not rows:
        return None
    seal = Seal(**rows[0])
    span = {"first_seq": seal.first_seq, "last_seq": seal.last_seq}
    texts = [row["tombstones"] for row in tx.fetch_all("tombstones_of_span", **span)]
    return seal, texts, tx.fetch_all("audit_span", limit=10 * BATCH, **span)


def _records_after(tx: Transaction, seq: int) -> list[Row]:
    return tx.fetch_all("audit_span", first_seq=seq + 1, last_seq=MAX_SEQ, limit=BATCH)


def _write_rows(write: Callable[[str], object], rows: Sequence[Row]) -> int:
    for row in rows:
        write(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
    return len(rows)


def verify_lines(lines: Iterable[str], *, anchor: str | None = None) -> Verification:
    """Holds an exported file against the seals in it. Raises ConfigError for a line that is no such export."""
    batches: dict[int, list[Record]] = {}
    seals: list[Seal] = []
    texts, vouchers = list[str](), list[Record]()
    unsealed = 0
    for number, line in enumerate(lines, start=1):
        row = _parse(line, number)
        if "seal" in row:
            seals.append(Seal(**row["seal"]))
        elif "tombstones" in row:
            texts.append(row["tombstones"])
        elif seals and row["seq"] <= seals[-1].last_seq:
            batches.setdefault(seals[-1].number, []).append(row)
        else:
            unsealed += 1
        if row.get("action") == ERASED_ACTION:
            vouchers.append(row)
    tombstones = _vouched(texts, _digests(vouchers))
    done = _verify(seals, lambda seal: (batches.get(seal.number, []), tombstones), anchor)
    done.unsealed, done.erased = unsealed, _summed(vouchers)
    return done


def _parse(line: str, number: int) -> Row:
    try:
        row: Row = json.loads(line)
        if "tombstones" in row:
            read_tombstones(row["tombstones"])
        elif "seal" not in row:
            _ = row["seq"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"line {number} is not of an audit export: {error}") from error
    return row
