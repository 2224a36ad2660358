"""Plain values that fit a JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]


def sample(schema: Schema, text: str = "Ada", definitions: Schema | None = None) -> Any:
    """A value of the schema's type with its required fields; texts are `text`. Only the plainest constraints count."""
    known = schema.get("$defs", definitions or {})
    given = _given(schema)
    if given:
        return given[0]
    if "$ref" in schema:
        return sample(known[schema["$ref"].rsplit("/", 1)[-1]], text, known)
    if schema.get("anyOf"):
        return sample(schema["anyOf"][0], text, known)
    kind = "object" if "properties" in schema else schema.get("type", "")
    make = _MAKERS.get(kind)
    return {} if make is None else make(schema, text, known)


def _given(schema: Schema) -> list[Any]:
    """What the schema itself names as a value, the most binding first."""
    named = [schema[key] for key in ("default", "const") if key in schema]
    return named + [schema[key][0] for key in ("examples", "enum") if schema.get(key)]


def _object(schema: Schema, text: str, known: Schema) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {key: sample(properties[key], text, known) for key in schema.get("required", ()) if key in properties}


def _array(schema: Schema, text: str, known: Schema) -> list[Any]:
    return [sample(schema.get("items", {}), text, known) for _ in range(schema.get("minItems", 0))]


_MAKERS: dict[str, Callable[[Schema, str, Schema], Any]] = {
    "object": _object,
    "array": _array,
    "string": lambda schema, text, _: text[: schema.get("maxLength", len(text))],
    "integer": lambda schema, *_: schema.get("minimum", 1),
    "number": lambda schema, *_: schema.get("minimum", 1.5),
    "boolean": lambda *_: True,
    "null": lambda *_: None,
}
