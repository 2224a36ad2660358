"""Describes the schema that a database really has, so that a fresh one can be compared with an upgraded one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeAlias

from pilothouse.store.database import Database, Row, Transaction
from pilothouse.store.statements import tokens_of

Schema: TypeAlias = dict[str, Any]

_COLUMNS = {
    "sqlite": """SELECT tables.name AS "table", columns.name AS "column", columns.type, columns."notnull" AS required,
        columns.dflt_value AS "default", columns.pk AS place_in_key, tables.wr AS without_rowid
    FROM pragma_table_list AS tables, pragma_table_xinfo(tables.name) AS columns
    WHERE tables.schema = 'main' AND tables.name NOT LIKE 'sqlite%'""",
    "postgres": """SELECT tables.relname AS "table", columns.attname AS "column",
        format_type(columns.atttypid, columns.atttypmod) AS type, columns.attnotnull AS required,
        pg_get_expr(defaults.adbin, defaults.adrelid) AS "default", columns.attidentity::text AS identity,
        collations.collname AS collation
    FROM pg_class AS tables
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum > 0 AND NOT columns.attisdropped
    LEFT JOIN pg_attrdef AS defaults ON defaults.adrelid = tables.oid AND defaults.adnum = columns.attnum
    LEFT JOIN pg_collation AS collations ON collations.oid = columns.attcollation
    WHERE tables.relnamespace = current_schema()::regnamespace AND tables.relkind IN ('r', 'p')""",
}
_INDEXES = {
    "sqlite": """SELECT indexes.name, sqlite_master.sql, indexes.origin, indexes."unique" AS is_unique, indexes.partial,
        (SELECT group_concat(parts.name) FROM pragma_index_info(indexes.name) AS parts) AS columns
    FROM pragma_table_list AS tables, pragma_index_list(tables.name) AS indexes
    LEFT JOIN sqlite_master ON sqlite_master.name = indexes.name AND sqlite_master.type = 'index'
    WHERE tables.schema = 'main'""",
    "postgres": "SELECT indexname AS name, indexdef AS sql FROM pg_indexes WHERE schemaname = current_schema()",
}
_TRIGGERS = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'",
    "postgres": """SELECT tgname AS name, pg_get_triggerdef(pg_trigger.oid) AS sql
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace""",
}
_CONSTRAINTS = {
    "sqlite": "SELECT name AS \"table\", sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "postgres": """SELECT relname AS "table", conname || ' ' || pg_get_constraintdef(pg_constraint.oid) AS sql
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE connamespace = current_schema()::regnamespace AND contype <> 'n'""",
}
_FUNCTIONS = {
    "sqlite": "SELECT '' AS name, '' AS sql WHERE false",
    "postgres": """SELECT proname || '(' || pg_get_function_identity_arguments(oid) || ')' AS name,
        pg_get_functiondef(oid) AS sql
    FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'""",
}


def describe_schema(db: Database) -> Schema:
    """Tables with their columns and constraints, indexes, triggers and functions, by name."""
    return db.administer(_describe)


def _describe(tx: Transaction) -> Schema:
    return {
        "tables": _tables(tx.fetch_all(_COLUMNS[tx.dialect]), tx.fetch_all(_CONSTRAINTS[tx.dialect]), tx.dialect),
        "indexes": _by_name(tx.fetch_all(_INDEXES[tx.dialect])),
        "triggers": _by_name(tx.fetch_all(_TRIGGERS[tx.dialect])),
        "functions": _by_name(tx.fetch_all(_FUNCTIONS[tx.dialect])),
    }


def _tables(columns: Iterable[Row], constraints: Iterable[Row], dialect: str) -> Schema:
    tables: Schema = defaultdict(lambda: {"columns": {}, "constraints": []})
    for column in columns:
        tables[column.pop("table")]["columns"][column.pop("column")] = column
    for row in constraints:
        found = [_tidy(row["sql"])] if dialect == "postgres" else _checks(row["sql"])
        tables[row["table"]]["constraints"] = sorted([*tables[row["table"]]["constraints"], *found])
    return dict(tables)


def _by_name(rows: Iterable[Row]) -> Schema:
    return {row["name"]: ", ".join(f"{key} {_tidy(str(row[key]))}" for key in row if key != "name") for row in rows}


def _tidy(sql: str) -> str:
    return " ".join(tokens_of(sql))


def _checks(create_table: str) -> list[str]:
    """The CHECK constraints of a table: SQLite keeps them nowhere but in its text."""
    tokens = tokens_of(create_table)
    starts = [place for place, token in enumerate(tokens) if token.upper() == "CHECK"]
    return [" ".join(_until_closed(tokens[start:])) for start in starts]


def _until_closed(tokens: list[str]) -> list[str]:
    depth = 0
    for place, sign in enumerate(tokens):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and sign == ")":
            return tokens[: place + 1]
    return tokens
