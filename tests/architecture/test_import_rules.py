"""Who may import whom: the table of the architecture, held against every import, lazy ones included."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source_tree import (
    PACKAGE,
    ROOT,
    imported_names,
    imported_nouns,
    name_of,
    noun_of,
    source_files,
    tree_of,
)

OPEN = {"errors", "clock", "config", "payloads"}
MAY_IMPORT = {
    "errors": set[str](),
    "clock": {"errors"},
    "payloads": {"errors"},
    "config": {"errors", "clock", "domain"},
    "domain": {"errors"},
    "store": {"domain"} | OPEN,
    "telemetry": {"domain"} | OPEN,
    "deploy": {"domain"} | OPEN,
    "control": {"store", "domain", "telemetry"} | OPEN,
    "llm": {"control", "domain", "telemetry"} | OPEN,
    "engine": {"llm", "control", "store", "domain", "telemetry"} | OPEN,
    "agents": {"engine", "llm", "control", "domain"} | OPEN,
    "tools": {"engine", "store", "domain"} | OPEN,
    "evals": {"engine", "llm", "control", "domain"} | OPEN,
    "web": {"control", "evals", "telemetry", "domain"} | OPEN,
    "client": {"domain"} | OPEN,
}
MAY_IMPORT_EVERYTHING = {"app", "platform", "cli", "testing", "examples", "__init__", "__main__"}
IMPURE = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "uuid",
}
DATABASE_DRIVERS = {"sqlite3", "aiosqlite", "psycopg", "psycopg_pool", "asyncpg"}


def test_a_module_imports_only_what_the_table_allows() -> None:
    bound = [path for path in source_files() if noun_of(path) not in MAY_IMPORT_EVERYTHING]
    assert {noun_of(path) for path in bound} <= MAY_IMPORT.keys(), "say in MAY_IMPORT what it may import"

    refused = {name_of(path): imported_nouns(path) - MAY_IMPORT[noun_of(path)] - {noun_of(path)} for path in bound}

    assert not {name: nouns for name, nouns in refused.items() if nouns}, "imports that MAY_IMPORT does not allow"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("domain/**/*.py")), ids=name_of)
def test_the_domain_is_pure(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported_names(path)} - {"pilothouse"}
    coroutines = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]

    assert roots <= set(sys.stdlib_module_names), f"{name_of(path)}: only the standard library, not {sorted(roots)}"
    assert not roots & IMPURE, f"{name_of(path)}: no I/O, clock, chance or logging: {sorted(roots & IMPURE)}"
    assert not coroutines, f"{name_of(path)}:{coroutines[0].lineno}: nothing to await in the domain"


def test_only_the_store_knows_a_database_driver() -> None:
    found = [
        f"{name_of(path)} imports {name}"
        for path in source_files()
        for name in imported_names(path)
        if noun_of(path) != "store" and name.split(".")[0] in DATABASE_DRIVERS
    ]

    assert not found, "use pilothouse.store"


def test_the_import_linter_contracts_mirror_the_table() -> None:
    nouns = {noun_of(path) for path in source_files()} - {"__init__", "__main__"}
    expected = {noun: nouns - MAY_IMPORT[noun] - {noun} for noun in nouns & set(MAY_IMPORT)}

    assert _contracts() == {noun: sorted(refused) for noun, refused in expected.items() if refused}


def _contracts() -> dict[str, list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        source.removeprefix("pilothouse."): sorted(
            name.removeprefix("pilothouse.") for name in contract["forbidden_modules"]
        )
        for contract in settings["tool"]["importlinter"]["contracts"]
        for source in contract["source_modules"]
    }
