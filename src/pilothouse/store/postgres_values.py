"""How values travel to PostgreSQL and back, so that a statement gives the same Python values as on SQLite: whole
numbers are always 64 bits wide, booleans are 0 and 1, JSON is text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types.string import TextLoader

_INT8, _FLOAT8, _BYTEA = 20, 701, 17
_BY_CONTEXT = 0  # the server takes the type from where the parameter stands

Encoded: TypeAlias = tuple[bytes | None, int]


def encode(value: object) -> Encoded:
    """The value in PostgreSQL's text format and the number of its type.

    Raises TypeError for a type that a statement cannot take, ValueError for text with a NUL character.
    """
    encoder = _ENCODERS.get(type(value)) or _encoder_of_base(value)
    return encoder(value)


def register_loaders(connection: psycopg.Connection[Any]) -> None:
    connection.adapters.register_loader("bool", _BoolLoader)
    connection.adapters.register_loader("numeric", _NumberLoader)
    connection.adapters.register_loader("json", TextLoader)
    connection.adapters.register_loader("jsonb", TextLoader)


class _BoolLoader(Loader):
    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class _NumberLoader(Loader):
    """A sum of whole numbers is a whole number, an average is a float, as on SQLite."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


def _encode_text(value: str) -> Encoded:
    data = value.encode()
    if b"\0" in data:
        raise ValueError("PostgreSQL cannot store text with a NUL character; remove it or encode it")
    return data, _BY_CONTEXT


def _encode_list(values: Sequence[object]) -> Encoded:
    items = ",".join(
        [_ARRAY_ITEMS[type(value)](value) if type(value) in _ARRAY_ITEMS else _item(value) for value in values]
    )
    return _encode_text(f"{{{items}}}")


def _item(value: object) -> str:
    for base, write in _ARRAY_ITEMS.items():
        if isinstance(value, base):
            return write(value)
    raise TypeError(f"a column of a statement cannot take a {type(value).__name__}")


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_ARRAY_ITEMS: dict[type, Callable[[Any], str]] = {
    str: _quote,
    bool: lambda value: str(int(value)),
    int: int.__repr__,
    float: float.__repr__,
    bytes: lambda value: f'"\\\\x{value.hex()}"',
    type(None): lambda _: "NULL",
}

_ENCODERS: dict[type, Callable[[Any], Encoded]] = {
    str: _encode_text,
    bool: lambda value: (b"1" if value else b"0", _INT8),
    int: lambda value: (b"%d" % value, _INT8),
    float: lambda value: (float.__repr__(value).encode(), _FLOAT8),
    bytes: lambda value: (b"\\x" + value.hex().encode(), _BYTEA),
    type(None): lambda _: (None, _BY_CONTEXT),
    list: _encode_list,
    tuple: _encode_list,
}


def _encoder_of_base(value: object) -> Callable[[Any], Encoded]:
    for base, encoder in _ENCODERS.items():
        if isinstance(value, base):
            return encoder
    raise TypeError(f"a statement cannot take a {type(value).__name__}")
