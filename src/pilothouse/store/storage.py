"""How much room each table takes, its indexes included."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.store.archive import Table, count_rows, tables
from pilothouse.store.database import Database, Transaction

_SIZES = {
    "sqlite": """SELECT objects.tbl_name AS "table", sum(pages.pgsize) AS bytes
    FROM dbstat AS pages JOIN sqlite_master AS objects ON objects.name = pages.name GROUP BY objects.tbl_name""",
    "postgres": """SELECT relname::text AS "table", pg_total_relation_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'""",
}
_FREE = {
    "sqlite": "SELECT freelist_count * page_size AS bytes FROM pragma_freelist_count, pragma_page_size",
    "postgres": "SELECT 0 AS bytes",
}


@dataclass(frozen=True, slots=True)
class TableSize:
    table: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """The largest tables first. `free_bytes` are kept by SQLite for what comes next."""

    tables: list[TableSize]
    free_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(each.bytes for each in self.tables) + self.free_bytes


def measure(db: Database) -> Storage:
    return db.examine(_measure)


def _measure(tx: Transaction) -> Storage:
    sizes = {row["table"]: int(row["bytes"]) for row in tx.fetch_all(_SIZES[tx.dialect])}
    found = [_size(tx, table, sizes) for table in tables(tx)]
    free = tx.fetch_one(_FREE[tx.dialect])
    return Storage(sorted(found, key=lambda each: -each.bytes), int(free["bytes"]) if free else 0)


def _size(tx: Transaction, table: Table, sizes: dict[str, int]) -> TableSize:
    return TableSize(table.name, count_rows(tx, table), sizes.get(table.name, 0))
