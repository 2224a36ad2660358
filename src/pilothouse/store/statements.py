"""Named SQL statements: finds the blocks of the `.sql` files, lets a dialect's file override a block, and compiles each
block at its first use. `:name` becomes the driver's parameter, `:now` the database's clock, `@rows(…)` a bulk source.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from operator import itemgetter
from typing import Literal, NoReturn

from pilothouse.errors import StoreError

Dialect = Literal["sqlite", "postgres"]
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgres")

_HEADER = re.compile(r"^-- name:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_TOKEN = re.compile(
    r"""
    (?P<comment>\s*(?:--[^\n]*|/\*.*?\*/))
    |(?P<text>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$|::)
    |:(?P<parameter>[A-Za-z_]\w*)
    |@rows\s*\((?P<columns>[^)]*)\)(?:\s+AS\s+(?P<alias>[A-Za-z_]\w*))?
    |(?P<end>;)
    |(?P<other>\w+|.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_ROWS = "/*rows*/"
"""Stands in SQLite's text for the rows, of which each call has another number."""

_THEN = "/*then*/"
"""Parts two statements of one block."""

_POSTGRES_NOW = "(extract(epoch from statement_timestamp()) * 1000000)::bigint"


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement. `parameters` and `columns` are what a caller must give, whichever the dialect uses."""

    name: str
    sql: str
    parameters: frozenset[str]
    columns: frozenset[str]
    bound: tuple[str, ...]
    binds_now: bool
    values_of: Callable[[Mapping[str, object]], tuple[object, ...]]
    """A row's values in the order in which SQLite's texts bind them."""

    def with_rows(self, count: int) -> tuple[str, ...]:
        """SQLite's texts for this many rows. Their parameters: `now`, if the statement binds it, then the rows'."""
        return _with_rows(self.sql, len(self.columns), count, first=1 + self.binds_now)

    def check(self, parameters: Mapping[str, object]) -> None:
        """Raise TypeError unless exactly the statement's parameters are given and it takes no rows."""
        if self.columns:
            raise TypeError(f"statement {self.name!r} takes @rows: call it with fetch_many or send_many")
        if parameters.keys() != self.parameters:
            self._refuse("parameters", self.parameters, parameters)

    def check_rows(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Raise TypeError unless the statement takes rows and each has exactly its columns."""
        if not self.columns:
            raise TypeError(f"statement {self.name!r} takes no @rows: call it with fetch_all, execute or send")
        for row in rows:
            if row.keys() != self.columns:
                self._refuse("columns", self.columns, row)

    def _refuse(self, what: str, wanted: frozenset[str], given: Mapping[str, object]) -> NoReturn:
        missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
        raise TypeError(
            f"statement {self.name!r} takes the {what} {sorted(wanted)}: missing {missing}, unknown {unknown}"
        )


@lru_cache(maxsize=1024)
def _with_rows(sql: str, width: int, count: int, *, first: int) -> tuple[str, ...]:
    row = ", ".join(["?"] * width)
    numbered = f"(?{first}{row[1:]})"  # the marks after it count on
    rows = ", ".join([numbered, *[f"({row})"] * (count - 1)])
    return tuple(part.replace(_ROWS, rows) for part in sql.split(_THEN))


class Statements:
    """The statements of one dialect by name."""

    def __init__(self, dialect: Dialect, blocks: Mapping[Dialect, Mapping[str, str]], *, bind_now: bool) -> None:
        self._dialect, self._blocks, self._bind_now = dialect, blocks, bind_now
        self._compiled: dict[str, Statement] = {}

    def __getitem__(self, name: str) -> Statement:
        """Raises LookupError, with the names that look alike, for one that no file defines."""
        statement = self._compiled.get(name)
        if statement is None:
            statement = self._compiled[name] = self._compile(name)
        return statement

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks[self._dialect])

    def _compile(self, name: str) -> Statement:
        if name not in self._blocks[self._dialect]:
            close = difflib.get_close_matches(name, self._blocks[self._dialect])
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise LookupError(f"no statement is named {name!r} for {self._dialect}{hint}")
        texts = {dialect: blocks[name] for dialect, blocks in self._blocks.items() if name in blocks}
        return _compile_for(self._dialect, name, texts, bind_now=self._bind_now)


class SqlTexts:
    """Stands in for `Statements` where a work gives SQL texts instead of names: migrations, plans, schema dumps."""

    def __init__(self, dialect: Dialect, *, bind_now: bool) -> None:
        self._dialect, self._bind_now = dialect, bind_now

    def __getitem__(self, sql: str) -> Statement:
        return _compile_for(self._dialect, sql, {self._dialect: sql}, bind_now=self._bind_now)


def load_statements(dialect: Dialect, folder: Traversable | None = None, *, bind_now: bool) -> Statements:
    """The statements in `folder` (the package's own unless given) as `dialect` runs them.

    `bind_now` makes `:now` a parameter instead of the server's clock.
    Raises StoreError for a name that is defined twice, or a file that belongs to no dialect.
    """
    folder = folder or files("pilothouse.store") / "sql"
    return Statements(dialect, {each: _read_blocks(folder, each) for each in DIALECTS}, bind_now=bind_now)


def split_script(script: str, *, is_complete: Callable[[str], bool] = lambda text: True) -> list[str]:
    """The statements of a script, cut at each `;` outside of literals and comments where `is_complete` agrees."""
    statements, current = [], ""
    for token in _TOKEN.finditer(script):
        current += token[0]
        if token["end"] and is_complete(current):
            statements.append(current.strip())
            current = ""
    if without_comments(current).strip():
        statements.append(current.strip())
    return statements


def tokens_of(sql: str) -> list[str]:
    """Words, literals and signs in order, without comments and spaces."""
    texts = (token[0].strip() for token in _TOKEN.finditer(sql) if not token["comment"])
    return [text for text in texts if text]


def without_comments(sql: str) -> str:
    """The text with each comment replaced by one space; literals stay as they are."""
    return "".join(" " if token["comment"] else token[0] for token in _TOKEN.finditer(sql))


def _read_blocks(folder: Traversable, dialect: Dialect) -> dict[str, str]:
    shared: dict[str, str] = {}
    overrides: dict[str, str] = {}
    home: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        noun, _, suffix = file.name.partition(".")
        if suffix in ("sql", f"{dialect}.sql"):
            target = shared if suffix == "sql" else overrides
            for name, sql in _blocks_of(file):
                if name in target or home.setdefault(name, noun) != noun:
                    raise StoreError(f"statement {name!r} in {file.name} is defined already in {home[name]}")
                target[name] = sql
        elif file.name.endswith(".sql") and suffix not in [f"{each}.sql" for each in DIALECTS]:
            raise StoreError(
                f"{file.name} belongs to no dialect; name it <noun>.sql or <noun>.{'|'.join(DIALECTS)}.sql"
            )
    return shared | overrides


def _blocks_of(file: Traversable) -> Iterator[tuple[str, str]]:
    _, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
    return zip(parts[::2], parts[1::2], strict=True)


def _compile_for(dialect: Dialect, name: str, texts: Mapping[Dialect, str], *, bind_now: bool) -> Statement:
    """Compile for every dialect that has the block, so that all of them ask for the same parameters and columns."""
    compiled = {each: _Compiler(each, name, bind_now=bind_now or each == "sqlite") for each in texts}
    sql = {each: compiler.compile(texts[each]) for each, compiler in compiled.items()}
    columns = {frozenset(compiler.columns) for compiler in compiled.values()}
    if len(columns) > 1:
        raise StoreError(f"statement {name!r} has different @rows columns in its dialects")
    parameters = frozenset[str]().union(*(compiler.scalars for compiler in compiled.values()))
    bound = tuple(compiled[dialect].bound)
    return Statement(name, sql[dialect], parameters, columns.pop(), bound, "now" in bound, _values_of(bound))


def _values_of(bound: Sequence[str]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    names = [name for name in bound if name != "now"]
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)


class _Compiler:
    """Rewrites one block for one dialect and notes what it takes. PostgreSQL gets numbered parameters ($1, $2, …)."""

    def __init__(self, dialect: Dialect, name: str, *, bind_now: bool) -> None:
        self.dialect, self.name, self.bind_now = dialect, name, bind_now
        self.bound: list[str] = []
        self.scalars: set[str] = set()
        self.columns: list[str] = []
        self.has_rows = self.has_rows_yet = False

    def compile(self, block: str) -> str:
        self.has_rows = any(token["columns"] is not None for token in _TOKEN.finditer(block))
        parts = split_script(block) if self.dialect == "sqlite" and self.has_rows else [block]
        sql = _THEN.join(self._compile_part(part).strip().removesuffix(";") for part in parts)
        both = self.scalars.intersection(self.columns)
        if both:
            raise StoreError(f"statement {self.name!r} uses {sorted(both)} both as column of @rows and as parameter")
        return sql

    def _compile_part(self, part: str) -> str:
        self.has_rows_yet = False
        return "".join(map(self._rewrite, _TOKEN.finditer(part)))

    def _rewrite(self, token: re.Match[str]) -> str:
        if token["comment"]:
            return " "
        if token["parameter"] == "now":
            return self._now()
        if token["parameter"]:
            self.scalars.add(token["parameter"])
            return self._bind(token["parameter"])
        return token[0] if token["columns"] is None else self._rows(token)

    def _now(self) -> str:
        if not self.bind_now:
            return _POSTGRES_NOW
        bound = self._bind("now")
        if self.dialect == "postgres":
            return f"{bound}::bigint"
        return "?1" if self.has_rows else bound

    def _bind(self, parameter: str) -> str:
        if parameter not in self.bound:
            self.bound.append(parameter)
        return f":{parameter}" if self.dialect == "sqlite" else f"${self.bound.index(parameter) + 1}"

    def _rows(self, token: re.Match[str]) -> str:
        columns = [column.split(None, 1) for column in token["columns"].split(",")]
        names_given = [column[0] for column in columns]
        is_wrong = self.has_rows_yet or self.columns not in ([], names_given)
        if is_wrong or not token["alias"] or any(len(column) != 2 for column in columns):
            raise StoreError(f"statement {self.name!r}: write one @rows(name type, …) AS alias")
        self.columns, self.has_rows_yet = names_given, True
        if self.dialect == "sqlite":
            self.bound.extend(name for name in self.columns if name not in self.bound)
            names = ", ".join(f"column{place} AS {name}" for place, name in enumerate(self.columns, 1))
            source = f"SELECT {names} FROM (VALUES {_ROWS})"  # noqa: S608 - put together from the statement's own columns
            return f"({source}) AS {token['alias']}"
        arrays = ", ".join(f"{self._bind(name)}::{type_.strip()}[]" for name, type_ in columns)
        return f"unnest({arrays}) AS {token['alias']}({', '.join(self.columns)})"
