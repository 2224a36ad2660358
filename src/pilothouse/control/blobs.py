"""Large payloads: a text beyond a bound is kept once, under its hash, and the rows that hold it refer to it.

A reference begins with `blob:`, as no JSON text does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pilothouse.store.database import Row, Transaction

LARGE = 65_536
"""Characters beyond which a text is no longer kept in its row: rows of the queue and of the journal stay short."""

PREFIX = "blob:"
SPARED_US = 3_600_000_000
"""A blob that was used in the last hour is not swept: a transaction under way may be about to refer to it."""

SWEPT_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows whose large texts are references now, and what those refer to."""

    rows: Sequence[Row]
    _texts: dict[tuple[str, str], str]

    def keep(self, tx: Transaction, run_ids: Collection[str]) -> None:
        """Stores what the rows of these runs refer to; in one order, so that nobody waits in a circle."""
        kept = {key: text for key, text in self._texts.items() if key[0] in run_ids}
        by_hash = {hash: text for (_, hash), text in kept.items()}
        if not kept:
            return
        tx.send_many("keep_blobs", [{"hash": hash, "payload": by_hash[hash]} for hash in sorted(by_hash)])
        tx.send_many("refer_to_blobs", [{"run_id": run_id, "hash": hash} for run_id, hash in sorted(kept)])


def pack(rows: Sequence[Row], column: str, *, run_id: str = "id") -> Packed:
    """The rows with a reference for each large text in `column`; `run_id` is the column of the run they belong to."""
    if not any(row[column] is not None and len(row[column]) > LARGE for row in rows):
        return Packed(rows, {})
    texts: dict[tuple[str, str], str] = {}

    def packed(row: Row) -> Row:
        text = row[column]
        if text is None or len(text) <= LARGE:
            return row
        hash = hashlib.sha256(text.encode()).hexdigest()
        texts[row[run_id], hash] = text
        return row | {column: PREFIX + hash}

    return Packed([packed(row) for row in rows], texts)


def unpack(tx: Transaction, rows: Sequence[Row], *columns: str) -> list[Row]:
    """The rows with the texts that they refer to in `columns`."""
    wanted = {row[column] for row in rows for column in columns if _is_reference(row[column])}
    if not wanted:
        return list(rows)
    hashes = [{"hash": reference.removeprefix(PREFIX)} for reference in sorted(wanted)]
    texts = {PREFIX + row["hash"]: row["payload"] for row in tx.fetch_many("blobs_by_hash", hashes)}
    return [row | {column: texts.get(row[column], row[column]) for column in columns} for row in rows]


def release(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Runs that leave the run log refer to nothing any more."""
    tx.send_many("release_blobs", [{"id": run_id} for run_id in run_ids])


def sweep(tx: Transaction) -> int:
    """Takes out some of the blobs that nothing refers to; how many."""
    return tx.execute("sweep_blobs", spared_us=SPARED_US, limit=SWEPT_AT_ONCE)


def _is_reference(text: object) -> bool:
    return isinstance(text, str) and text.startswith(PREFIX)
