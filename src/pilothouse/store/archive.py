"""Copies every table of a database, in pages of one snapshot, and writes such copies into an empty one of any dialect.

Tables and columns are those of the catalog, so a new table needs nothing here. Instants, numbers and text are alike in
both dialects; what a server keeps for itself (numbers of its transactions) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pilothouse.store.database import Row, Transaction

PAGE = 1000
LEFT_OUT = ("schema_migrations",)

_COLUMNS = {
    "sqlite": """SELECT tables.name AS "table", columns.name AS "column", lower(columns.type) AS type,
        columns.pk AS place_in_key
    FROM pragma_table_list AS tables, pragma_table_info(tables.name) AS columns
    WHERE tables.schema = 'main' AND tables.type = 'table' AND tables.name NOT LIKE 'sqlite%'
    ORDER BY tables.name, columns.cid""",
    "postgres": """SELECT tables.relname::text AS "table", columns.attname::text AS "column",
        format_type(columns.atttypid, NULL) AS type,
        coalesce(array_position(keys.indkey::smallint[], columns.attnum), -1) + 1 AS place_in_key
    FROM pg_class AS tables
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum > 0 AND NOT columns.attisdropped
    LEFT JOIN pg_index AS keys ON keys.indrelid = tables.oid AND keys.indisprimary
    WHERE tables.relnamespace = current_schema()::regnamespace AND tables.relkind = 'r'
        AND columns.atttypid <> 'xid8'::regtype
    ORDER BY tables.relname, columns.attnum""",
}
_OWN_NUMBERS = {"sqlite": "", "postgres": " OVERRIDING SYSTEM VALUE"}
_SEQUENCE = "SELECT setval(pg_get_serial_sequence(:table, :column), :value) AS value"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalog knows it: its columns with their types, and those of its primary key in order."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


def tables(tx: Transaction) -> list[Table]:
    """The tables that a copy holds, by name."""
    by_name: dict[str, list[Row]] = {}
    for row in tx.fetch_all(_COLUMNS[tx.dialect]):
        if row["table"] not in LEFT_OUT:
            by_name.setdefault(row["table"], []).append(row)
    return [_table(name, rows) for name, rows in sorted(by_name.items())]


def _table(name: str, rows: Sequence[Row]) -> Table:
    in_key = sorted((row["place_in_key"], row["column"]) for row in rows if row["place_in_key"] > 0)
    return Table(name, {row["column"]: row["type"] for row in rows}, tuple(column for _, column in in_key))


def read_rows(tx: Transaction, table: Table) -> Iterator[list[object]]:
    """All rows in the order of the key, each as the values of its columns."""
    shown, key = _list(table.columns), _list(table.key)
    first = f"SELECT {shown} FROM {_quote(table.name)} ORDER BY {key} LIMIT {PAGE}"  # noqa: S608 - of the catalog
    place = ", ".join(f":after_{number}" for number, _ in enumerate(table.key))
    rest = first.replace(" ORDER BY", f" WHERE ({key}) > ({place}) ORDER BY")
    rows = tx.fetch_all(first)
    while rows:
        yield from ([row[column] for column in table.columns] for row in rows)
        if len(rows) < PAGE:
            return
        last = {f"after_{number}": rows[-1][column] for number, column in enumerate(table.key)}
        rows = tx.fetch_all(rest, **last)


def write_rows(tx: Transaction, table: Table, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes rows whose values are in the order of `columns`."""
    source = ", ".join(f"{column} {table.columns[column]}" for column in columns)
    values = ", ".join(f"item.{column}" for column in columns)
    into = f"{_quote(table.name)} ({_list(columns)}){_OWN_NUMBERS[tx.dialect]}"
    statement = f"INSERT INTO {into} SELECT {values} FROM @rows({source}) AS item"  # noqa: S608 - of the catalog
    tx.send_many(statement, [dict(zip(columns, row, strict=True)) for row in rows])


def count_rows(tx: Transaction, table: Table) -> int:
    row = tx.fetch_one(f"SELECT count(*) AS found FROM {_quote(table.name)}")  # noqa: S608 - of the catalog
    return int(row["found"]) if row else 0


def move_sequences(tx: Transaction, found: Sequence[Table]) -> None:
    """Makes numbered rows go on after the last one. SQLite does so by itself."""
    if tx.dialect == "sqlite":
        return
    for table in found:
        if len(table.key) == 1 and table.columns[table.key[0]] == "bigint":
            column = table.key[0]
            highest = f"SELECT max({_quote(column)}) AS value FROM {_quote(table.name)}"  # noqa: S608 - of the catalog
            row = tx.fetch_one(highest)
            if row and row["value"] is not None:
                tx.fetch_all(_SEQUENCE, table=table.name, column=column, value=row["value"])


def _list(names: Sequence[str] | dict[str, str]) -> str:
    return ", ".join(map(_quote, names))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
