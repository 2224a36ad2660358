"""Statements are found, overridden and compiled alike for both dialects."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.errors import StoreError
from pilothouse.store.statements import (
    DIALECTS,
    Dialect,
    SqlTexts,
    load_statements,
    split_script,
    without_comments,
)

# Literals whose inside looks like everything that is rewritten outside of them.
LITERALS = [
    "':a'",
    "'it''s :a'",
    "E'\\':a'",
    '":a ""b"',
    "$$ :a; $$",
    "$x$ $$ :a @rows(b text) $x$",
    "'-- name: x'",
    "';'",
]


def sql(dialect: Dialect, text: str, *, bind_now: bool = False) -> str:
    return SqlTexts(dialect, bind_now=bind_now)[text].sql


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name.replace('_', '.')}.sql").write_text(text)
    return folder


def test_parameters_become_the_drivers_own() -> None:
    text = "SELECT :b::text, :a, :b WHERE x = ':c' AND y::int = 5 -- not :d"

    assert sql("postgres", text) == "SELECT $1::text, $2, $1 WHERE x = ':c' AND y::int = 5"
    assert SqlTexts("postgres", bind_now=False)[text].bound == ("b", "a")
    assert sql("sqlite", "SELECT :b, :a") == "SELECT :b, :a"


def test_now_is_the_servers_clock_unless_it_is_bound() -> None:
    assert "statement_timestamp()" in sql("postgres", "SELECT :now")
    assert sql("postgres", "SELECT :now", bind_now=True) == "SELECT $1::bigint"
    assert sql("sqlite", "SELECT :now") == "SELECT :now"
    assert SqlTexts("sqlite", bind_now=False)["SELECT :now"].parameters == frozenset()


def test_rows_are_arrays_on_postgresql_and_values_on_sqlite() -> None:
    text = "SELECT * FROM @rows(run_id text, score double precision) AS item"

    assert sql("postgres", text) == "SELECT * FROM unnest($1::text[], $2::double precision[]) AS item(run_id, score)"
    statement = SqlTexts("sqlite", bind_now=True)[text]
    values = "SELECT * FROM (SELECT column1 AS run_id, column2 AS score FROM (VALUES {})) AS item"
    assert statement.with_rows(1) == (values.format("(?1, ?)"),)
    assert statement.with_rows(3) == (values.format("(?1, ?), (?, ?), (?, ?)"),)
    assert statement.columns == {"run_id", "score"}


def test_now_comes_before_the_rows_wherever_it_stands() -> None:
    statement = SqlTexts("sqlite", bind_now=True)["SELECT item.id, :now FROM @rows(id text) AS item"]

    assert statement.with_rows(2) == ("SELECT item.id, ?1 FROM (SELECT column1 AS id FROM (VALUES (?2), (?))) AS item",)


def test_a_block_of_sqlite_may_write_after_its_answer() -> None:
    rows = "SELECT item.id FROM @rows(id text) AS item"
    text = f"{rows}; DELETE FROM t WHERE id IN ({rows})"

    answer, write = SqlTexts("sqlite", bind_now=True)[text].with_rows(1)

    assert (answer.split()[0], write.split()[0]) == ("SELECT", "DELETE")
    assert answer.count("(?1)") == write.count("(?1)") == 1


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM @rows(id text)",
        "SELECT * FROM @rows(id) AS item",
        "SELECT * FROM @rows(id text) AS a, @rows(id text) AS b",
        "SELECT :id FROM @rows(id text) AS item",
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_use_of_rows_is_refused(dialect: Dialect, text: str) -> None:
    with pytest.raises(StoreError, match="@rows"):
        sql(dialect, text)


@given(st.lists(st.sampled_from(LITERALS)))
def test_literals_stay_as_they_are(literals: list[str]) -> None:
    text = "SELECT " + " || ".join(literals) + " , :parameter"

    compiled = sql("postgres", text)

    assert compiled == text.replace(":parameter", "$1")


@given(st.lists(st.sampled_from([*LITERALS, "SELECT", ":a", "x"]), min_size=1).map(" ".join))
def test_comments_change_nothing(text: str) -> None:
    commented = f"/* :b; ' */ {text} -- :c ' ;"

    assert sql("postgres", commented) == sql("postgres", text)
    assert without_comments(commented).strip() == text


@given(st.lists(st.sampled_from(LITERALS).map(lambda literal: f"SELECT {literal};")))
def test_a_script_is_cut_only_between_statements(statements: list[str]) -> None:
    assert split_script("\n".join(statements)) == statements


def test_the_last_statement_of_a_script_needs_no_end() -> None:
    assert split_script("SELECT 1; SELECT 2 -- end\n") == ["SELECT 1;", "SELECT 2 -- end"]
    assert split_script(" -- nothing but a comment;\n") == []


def test_a_dialect_overrides_a_block_of_the_same_noun(tmp_path: Path) -> None:
    write(
        tmp_path,
        runs="-- name: one\n-- Why.\nSELECT 1;\n\n-- name: two\nSELECT 2",
        runs_postgres="-- name: two\nSELECT 22",
    )

    on_postgres, on_sqlite = (load_statements(each, tmp_path, bind_now=False) for each in ("postgres", "sqlite"))

    assert [on_postgres[name].sql for name in on_postgres] == ["SELECT 1", "SELECT 22"]
    assert [on_sqlite[name].sql for name in on_sqlite] == ["SELECT 1", "SELECT 2"]


def test_a_dialect_may_have_blocks_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, runs="-- name: one\nSELECT 1", runs_postgres="-- name: two\nSELECT 2")

    assert set(load_statements("postgres", tmp_path, bind_now=True)) == {"one", "two"}
    assert set(load_statements("sqlite", tmp_path, bind_now=True)) == {"one"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_dialects_ask_for_the_parameters_of_any(tmp_path: Path, dialect: Dialect) -> None:
    write(tmp_path, runs="-- name: lock\nSELECT 1 WHERE false", runs_postgres="-- name: lock\nSELECT 1 WHERE :id = ''")

    statement = load_statements(dialect, tmp_path, bind_now=True)["lock"]

    assert statement.parameters == {"id"}
    assert statement.bound == (("id",) if dialect == "postgres" else ())


def test_dialects_with_different_columns_are_refused(tmp_path: Path) -> None:
    rows = "-- name: a\nSELECT 1 FROM @rows({} text) AS item"
    write(tmp_path, runs=rows.format("one"), runs_sqlite=rows.format("two"))

    with pytest.raises(StoreError, match="different @rows columns"):
        load_statements("postgres", tmp_path, bind_now=True)["a"]


@pytest.mark.parametrize(
    "files",
    [
        {"runs": "-- name: a\nSELECT 1\n-- name: a\nSELECT 2"},
        {"runs": "-- name: a\nSELECT 1", "agents": "-- name: a\nSELECT 2"},
        {"runs": "-- name: a\nSELECT 1", "agents_postgres": "-- name: a\nSELECT 2"},
    ],
)
def test_a_name_is_defined_once(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(StoreError, match=r"'a' in .* is defined already in"):
        load_statements("postgres", write(tmp_path, **files), bind_now=True)


def test_a_file_of_no_dialect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="belongs to no dialect"):
        load_statements("postgres", write(tmp_path, runs_mysql="-- name: a\nSELECT 1"), bind_now=True)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    statements = load_statements("sqlite", write(tmp_path, runs="-- name: claim_runs\nSELECT 1"), bind_now=True)

    with pytest.raises(LookupError, match="no statement is named 'claim_run' for sqlite; did you mean 'claim_runs'"):
        statements["claim_run"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_of_pilothouse_compiles(dialect: Dialect) -> None:
    statements = load_statements(dialect, bind_now=False)

    assert all(statements[name].sql for name in statements)
