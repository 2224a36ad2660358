"""Canonical JSON: the one form in which inputs, results and requests are stored, compared and hashed."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import orjson


def encode(value: object) -> str:
    """Canonical JSON text of plain JSON data. Raises ValueError that names what cannot be stored."""
    try:
        data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be stored as JSON: {error}") from error
    if b"null" in data:
        refuse_nan(value)
    return data.decode()


def decode(text: str | bytes) -> Any:
    """The value of JSON text. Raises ValueError with the place of the mistake."""
    return orjson.loads(text)


def digest(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refuse_nan(value: object) -> None:
    """Raises ValueError for a number that JSON cannot carry, at any depth of plain data.

    orjson writes NaN and infinities as null; a number that turns into nothing is a loss, so it is an error.
    """
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"cannot be stored as JSON: {value} is not a finite number")
        case dict():
            for item in value.values():
                refuse_nan(item)
        case list() | tuple():
            for item in value:
                refuse_nan(item)
        case _:
            pass
