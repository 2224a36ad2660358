"""What belongs to one tenant, table by table, in pages of one snapshot: for its export and its figures.

Columns are those of the catalog, so a new column needs nothing here. A new table belongs either to tenants (`WAYS`) or
to the platform (`OF_THE_PLATFORM`); a test fails for one that is in neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pilothouse.store.archive import Table, tables
from pilothouse.store.database import Row, Transaction

PAGE = 200
RUNS_AT_ONCE = 500

_RUNS = "SELECT id FROM runs WHERE tenant = :tenant AND id > :after_run AND id <= :last_run"
_OWN = "tenant = :tenant"
_OF_RUN = f"run_id > :after_run AND run_id <= :last_run AND run_id IN ({_RUNS})"
_OF_APPROVAL = "approval_id IN (SELECT id FROM approvals WHERE tenant = :tenant)"
_OF_ACCOUNT = """({column} = 'tenant:' || CAST(:tenant AS TEXT) OR (substr({column}, 1, 4) = 'run:' AND EXISTS (
    SELECT 1 FROM runs WHERE runs.id = substr({column}, 5) AND runs.tenant = :tenant)))"""
_NEW_BLOBS = """NOT EXISTS (
    SELECT 1 FROM blob_references AS seen JOIN runs ON runs.id = seen.run_id
    WHERE seen.hash = blobs.hash AND runs.tenant = :tenant AND runs.id <= :after_run)"""
_BLOBS = f"hash IN (SELECT hash FROM blob_references WHERE {_OF_RUN}) AND {_NEW_BLOBS}"  # noqa: S608 - of this file


@dataclass(frozen=True, slots=True)
class Way:
    """How rows of a table belong to a tenant. `by_run`: through its runs. `order` are columns before those of the key.

    `left_out` are columns that an export has not: secrets. `page` is how many rows are read at once.
    """

    condition: str
    by_run: bool = False
    order: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    page: int = PAGE


_THROUGH_RUN = Way(_OF_RUN, by_run=True)

WAYS: Mapping[str, Way] = {
    "runs": Way(_OWN),
    "attempts": _THROUGH_RUN,
    "checkpoints": _THROUGH_RUN,
    "signals": _THROUGH_RUN,
    "waits": _THROUGH_RUN,
    "run_logs": Way(_OF_RUN, by_run=True, order=("run_id",)),
    "model_calls": _THROUGH_RUN,
    "tool_calls": _THROUGH_RUN,
    "blob_references": _THROUGH_RUN,
    "blobs": Way(_BLOBS, by_run=True, page=4),
    "effects": Way(_OWN),
    "incidents": Way(_OWN),
    "incident_effects": Way(_OWN),
    "corrections": Way(_OWN),
    "cases": Way(_OWN),
    "approvals": Way(_OWN),
    "approval_votes": Way(_OF_APPROVAL),
    "reservations": Way(_OWN),
    "ledger": Way(_OWN),
    "balances": Way(_OF_ACCOUNT.format(column="account")),
    "limits": Way(_OF_ACCOUNT.format(column="scope")),
    "memories": Way(_OWN),
    "model_answers": Way(_OWN),
    "schedules": Way(_OWN),
    "alerts": Way(_OWN),
    "api_keys": Way(_OWN, left_out=("secret_hash",)),
    "audit": Way(_OWN),
}
"""The tables that hold what is a tenant's, in the order in which an export writes them."""

OF_THE_PLATFORM = frozenset(
    {
        "agents",
        "alert_notices",
        "audit_seals",
        "autonomy",
        "baselines",
        "breakers",
        "buckets",
        "calibrations",
        "counters",
        "erased_records",
        "erasures",
        "history",
        "history_series",
        "leases",
        "silences",
        "stability",
        "switch_epochs",
        "switches",
        "workers",
    }
)
"""What no tenant owns. Erasures name the tenant that was erased: that is what they are there to say."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one table, or of one table for some runs: SQL that reads a page, and what it is asked with."""

    table: Table
    way: Way
    columns: tuple[str, ...]

    def pages(self, tx: Transaction, parameters: Mapping[str, object]) -> Iterator[list[Row]]:
        order = tuple(dict.fromkeys((*self.way.order, *self.table.key)))
        listed, key = _list(self.columns), _list(order)
        source = f"FROM {_quote(self.table.name)} WHERE {self.way.condition}"
        limit = self.way.page
        first = f"SELECT {listed} {source} ORDER BY {key} LIMIT {limit}"
        place = ", ".join(f":place_{number}" for number, _ in enumerate(order))
        rest = f"SELECT {listed} {source} AND ({key}) > ({place}) ORDER BY {key} LIMIT {limit}"
        rows = tx.fetch_all(first, **parameters)
        while rows:
            yield rows
            if len(rows) < limit:
                return
            last = {f"place_{number}": rows[-1][column] for number, column in enumerate(order)}
            rows = tx.fetch_all(rest, **parameters, **last)


def rows_of(tx: Transaction, tenant: str) -> Iterator[tuple[str, Row]]:
    """Every row of a tenant, with the name of its table."""
    parts = _parts(tx)
    for part in parts:
        if part.table.name == "runs" or not part.way.by_run:
            yield from _rows(tx, part, {"tenant": tenant})
    for first, last in _run_spans(tx, tenant):
        for part in parts:
            if part.way.by_run:
                yield from _rows(tx, part, {"tenant": tenant, "after_run": first, "last_run": last})


def count_rows(tx: Transaction, tenant: str) -> dict[str, int]:
    """How many rows a tenant has in each table in which it has any."""
    whole = {"tenant": tenant, "after_run": "", "last_run": "~"}
    counted = {}
    for name, way in WAYS.items():
        parameters = whole if way.by_run else {"tenant": tenant}
        sql = f"SELECT count(*) AS found FROM {_quote(name)} WHERE {way.condition}"  # noqa: S608 - of this file
        row = tx.fetch_one(sql, **parameters)
        counted[name] = int(row["found"]) if row else 0
    return {name: count for name, count in counted.items() if count}


def _parts(tx: Transaction) -> list[Part]:
    known = {table.name: table for table in tables(tx)}
    return [_part(known[name], way) for name, way in WAYS.items()]


def _part(table: Table, way: Way) -> Part:
    return Part(table, way, tuple(column for column in table.columns if column not in way.left_out))


def _rows(tx: Transaction, part: Part, parameters: Mapping[str, object]) -> Iterator[tuple[str, Row]]:
    for page in part.pages(tx, parameters):
        yield from ((part.table.name, row) for row in page)


def _run_spans(tx: Transaction, tenant: str) -> Iterator[tuple[str, str]]:
    """The tenant's runs in pages: behind which id each begins, and its last."""
    sql = f"SELECT id FROM runs WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT {RUNS_AT_ONCE}"  # noqa: S608
    after = ""
    while rows := tx.fetch_all(sql, tenant=tenant, after=after):
        yield after, rows[-1]["id"]
        after = rows[-1]["id"]


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(map(_quote, names))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
