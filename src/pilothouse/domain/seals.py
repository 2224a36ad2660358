"""Seals: what proves that the audit is as it was written.

A batch of records is hashed into a Merkle tree as in RFC 6962, section 2.1: a leaf is SHA-256(0x00, record), a node is
SHA-256(0x01, left, right). A seal holds the root, the short hash of every leaf, which names a record that is wrong, and
the hash of the seal before, so that none can be taken out of the middle.

A record may be erased: what it said about a tenant and its people goes, its leaf stays in a tombstone, and with it the
root. A tombstone counts only where a later record says that it was made, so that nobody can erase unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEALED_FIELDS = (
    "seq",
    "at",
    "tenant",
    "principal",
    "action",
    "entity",
    "entity_id",
    "before",
    "after",
    "reason",
    "run_id",
    "attempt",
)
"""What a record says, in the order in which it is hashed."""

GENESIS = "0" * 64
"""What stands for the seal before the first."""

SHORT = 16
"""Hex digits of a leaf that a seal keeps to name it; the root covers all of it."""

ERASED = "erased"
"""What stands for the names in an erased record."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seal:
    """`leaves` reads `seq:short,seq:short,…`; `sealed_at` is in microseconds; hashes are hex.

    `pruned_through` is the latest instant of its records once they have left the audit, in microseconds; None while
    they are there. No hash covers it.
    """

    number: int
    first_seq: int
    last_seq: int
    records: int
    root: str
    leaves: str
    previous: str
    hash: str
    sealed_at: int
    pruned_through: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was sealed. `seq` names the record, None where the seal itself is wrong."""

    seal: int
    seq: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of an erased record: the hash of what it said, `leaf`, and of what it says now, `rest`; in hex."""

    seq: int
    leaf: str
    rest: str


def erase(record: Record) -> dict[str, Any]:
    """The record without what it says about a tenant and its people: what was done stays, and when."""
    gone = {"tenant": "", "principal": ERASED, "entity_id": ERASED, "reason": None, "run_id": None}
    return {**record, **gone}


def tombstones_text(records: Iterable[Record]) -> str:
    """The tombstones of records that are about to be erased, as they are kept."""
    rows = [[record["seq"], leaf_hash(record).hex(), leaf_hash(erase(record)).hex()] for record in records]
    return json.dumps(rows, separators=(",", ":"))


def read_tombstones(text: str) -> dict[int, Tombstone]:
    """By the number of the record. Raises ValueError for a text that holds none."""
    try:
        return {seq: Tombstone(seq, leaf, rest) for seq, leaf, rest in json.loads(text)}
    except TypeError as error:
        raise ValueError(f"{text[:50]!r} holds no tombstones") from error


def digest_of(text: str) -> str:
    """What the record of an erasure says of its tombstones."""
    return hashlib.sha256(text.encode()).hexdigest()


def leaf_hash(record: Record) -> bytes:
    text = json.dumps([record[name] for name in SEALED_FIELDS], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(b"\x00" + text.encode("utf-8", "surrogatepass")).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over the leaves; with an odd number on a level, the largest power of two goes to the left."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def make_seal(records: Sequence[Record], *, number: int, previous: Seal | None, last_seq: int, sealed_at: int) -> Seal:
    """Seals every record after the previous seal up to `last_seq`; numbers that no record has stay without one."""
    hashes = [leaf_hash(record) for record in records]
    leaves = ",".join(f"{record['seq']}:{each.hex()[:SHORT]}" for record, each in zip(records, hashes, strict=True))
    first_seq = previous.last_seq + 1 if previous else 1
    root = merkle_root(hashes).hex()
    before = previous.hash if previous else GENESIS
    facts = (number, first_seq, last_seq, len(records), root, leaves, before, sealed_at)
    return Seal(*facts[:7], hash=_hash(facts), sealed_at=sealed_at)


def _hash(facts: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def check_chain(seal: Seal, previous: Seal | None) -> list[Finding]:
    """Whether a seal is whole and follows the one before."""
    facts = (
        seal.number,
        seal.first_seq,
        seal.last_seq,
        seal.records,
        seal.root,
        seal.leaves,
        seal.previous,
        seal.sealed_at,
    )
    if seal.hash != _hash(facts):
        return [Finding(seal.number, None, "the seal itself was changed")]
    expected = previous.number + 1 if previous else 1
    if seal.number != expected:
        return [Finding(expected, None, f"the seals {expected} to {seal.number - 1} were removed")]
    follows = (seal.previous, seal.first_seq) == ((previous.hash, previous.last_seq + 1) if previous else (GENESIS, 1))
    return [] if follows else [Finding(seal.number, None, "the seal does not follow the one before it")]


def check_records(
    seal: Seal, records: Iterable[Record], tombstones: Mapping[int, Tombstone] | None = None
) -> list[Finding]:
    """Which records of a seal's span were changed, removed or inserted; `records` come in the order of `seq`.

    `tombstones` are those that a record of an erasure vouches for.
    """
    if seal.pruned_through is not None:
        return [Finding(seal.number, record["seq"], "inserted") for record in records]
    sealed = dict(leaf.split(":") for leaf in seal.leaves.split(",") if leaf)
    findings, hashes = [], []
    for record in records:
        short = sealed.pop(str(record["seq"]), None)
        hashes.append(_sealed_hash(record, short, (tombstones or {}).get(record["seq"])))
        if short != hashes[-1].hex()[:SHORT]:
            findings.append(Finding(seal.number, record["seq"], "inserted" if short is None else "changed"))
    findings += [Finding(seal.number, int(seq), "removed") for seq in sealed]
    if not findings and merkle_root(hashes).hex() != seal.root:
        findings.append(Finding(seal.number, None, "the records do not have the root that was sealed"))
    return sorted(findings, key=lambda finding: finding.seq or 0)


def _sealed_hash(record: Record, short: str | None, tombstone: Tombstone | None) -> bytes:
    """The hash that a record had when it was sealed; one that was erased before says now what it said then."""
    own = leaf_hash(record)
    if tombstone is None or tombstone.rest != own.hex() or tombstone.leaf[:SHORT] != short:
        return own
    return bytes.fromhex(tombstone.leaf)
