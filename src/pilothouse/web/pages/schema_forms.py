"""A form made from a JSON Schema, and the value that it says. What no field fits is typed as JSON.

A form is flat, as browsers send it: `input.order.count` is the name of a field, `input.tags.#` says how many tags.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pilothouse import payloads
from pilothouse.web.pages.wording import editable

Kind = Literal["text", "number", "flag", "choice", "list", "group", "json"]
Flat = Mapping[str, str]

DEEPEST = 6
MOST_LINES = 100
LONG_TEXT = 120
LONG_NAMES = frozenset({"text", "body", "content", "prompt", "message", "question", "html", "markdown"})
NEEDED = "is needed"

BLANK: Any = object()
"""What a field says that was left out."""


@dataclass(slots=True)
class Shape:
    """What kind of field a schema asks for, with what it refers to filled in."""

    kind: Kind
    schema: Mapping[str, Any]
    root: Mapping[str, Any]
    depth: int
    is_nullable: bool = False

    def below(self, schema: Any) -> Shape:
        return shape_of(schema, self.root, self.depth + 1)

    @property
    def properties(self) -> dict[str, Shape]:
        return {name: self.below(each) for name, each in self.schema["properties"].items()}

    @property
    def needed(self) -> frozenset[str]:
        return frozenset(self.schema.get("required") or ())

    @property
    def options(self) -> list[Any]:
        return list(self.schema["enum"]) if "enum" in self.schema else [self.schema["const"]]


@dataclass(slots=True)
class Field:
    """One field as a page shows it; `below` are those that it holds."""

    kind: Kind
    name: str
    label: str
    hint: str
    is_needed: bool
    value: str = ""
    error: str = ""
    is_long: bool = False
    options: list[tuple[str, str]] = field(default_factory=list)
    below: list[Field] = field(default_factory=list)


def shape_of(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Shape:
    """What a schema asks for; JSON where it is nothing that a field can hold."""
    found, is_nullable = _resolved(schema, root)
    return Shape(_kind(found, root, depth), found, root, depth, is_nullable)


def _resolved(schema: Any, root: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema that is meant, with what stands beside a reference to it; and whether null fits too."""
    is_nullable = False
    found: Any = schema
    for _ in range(DEEPEST):
        if not isinstance(found, dict):
            return {}, is_nullable
        if isinstance(found.get("$ref"), str):
            found = {**_referred(found["$ref"], root), **{name: found[name] for name in found if name != "$ref"}}
            continue
        several = found.get("anyOf") or found.get("oneOf") or found.get("allOf")
        if not isinstance(several, list):
            break
        meant = [each for each in several if isinstance(each, dict) and each.get("type") != "null"]
        is_nullable = is_nullable or len(meant) < len(several)
        if len(meant) != 1:
            break
        found = {**meant[0], **{name: found[name] for name in found if name not in ("anyOf", "oneOf", "allOf")}}
    if isinstance(found.get("type"), list) and "null" in found["type"] and len(found["type"]) == 2:
        is_nullable = True
        found = {**found, "type": next(each for each in found["type"] if each != "null")}
    return found, is_nullable


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _kind(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Kind:
    options = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(options, list) and options and all(isinstance(each, str | int | float) for each in options):
        return "choice"
    type_ = schema.get("type")
    simple: dict[Any, Kind] = {"string": "text", "integer": "number", "number": "number", "boolean": "flag"}
    if isinstance(type_, str) and type_ in simple:
        return simple[type_]
    if depth >= DEEPEST:
        return "json"
    if type_ == "object" and schema.get("properties") and not schema.get("patternProperties"):
        return "group"
    if type_ == "array" and isinstance(schema.get("items"), dict):
        inner = shape_of(schema["items"], root, depth + 1)
        return "json" if inner.kind in ("json", "list") or inner.is_nullable else "list"
    return "json"


# --- from a value to a form, and back ---------------------------------------------------------------


def flatten(shape: Shape, value: Any, name: str = "input") -> dict[str, str]:
    """The form that says this value."""
    return dict(_flat(shape, value, name))


def defaults(shape: Shape, name: str = "input") -> dict[str, str]:
    """The form as it is before anybody has typed."""
    found: dict[str, str] = {}
    if "default" in shape.schema and shape.schema["default"] is not None:
        return flatten(shape, shape.schema["default"], name)
    if shape.kind == "group":
        for key, inner in shape.properties.items():
            found |= defaults(inner, f"{name}.{key}")
    return found


def _flat(shape: Shape, value: Any, name: str) -> Iterator[tuple[str, str]]:
    if value is None and shape.kind != "json":
        return
    if shape.kind == "group" and isinstance(value, dict):
        for key, inner in shape.properties.items():
            if key in value:
                yield from _flat(inner, value[key], f"{name}.{key}")
    elif shape.kind == "list" and isinstance(value, list):
        yield f"{name}.#", str(len(value))
        inner = shape.below(shape.schema["items"])
        for place, each in enumerate(value):
            yield from _flat(inner, each, f"{name}.{place}")
    elif shape.kind == "flag":
        yield name, "on" if value is True else ""
    elif shape.kind == "text" and isinstance(value, str):
        yield name, value
    elif shape.kind == "json":
        yield name, editable(value)
    else:
        yield name, payloads.encode(value)


def say(shape: Shape, form: Flat, errors: dict[str, str], name: str = "input") -> Any:
    """The value that a form says; BLANK where nothing was typed. `errors` takes what does not fit, by field."""
    if shape.kind == "group":
        return _said_group(shape, form, errors, name)
    if shape.kind == "list":
        inner = shape.below(shape.schema["items"])
        said = [say(inner, form, errors, f"{name}.{place}") for place in range(lines_of(form, name))]
        kept = [each for each in said if each is not BLANK]
        return kept if kept else BLANK
    if shape.kind == "flag":
        return bool(form.get(name))
    text = form.get(name, "")
    if shape.kind == "text":
        return text or BLANK
    if not text.strip():
        return BLANK
    try:
        return _number(shape, text) if shape.kind == "number" else payloads.decode(text)
    except ValueError as error:
        errors[name] = str(error) if shape.kind == "number" else f"is not JSON: {error}"
        return None


def _number(shape: Shape, text: str) -> int | float:
    try:
        return int(text.strip())
    except ValueError:
        pass
    if shape.schema.get("type") == "integer":
        raise ValueError("is not a whole number")
    try:
        number = float(text.strip())
    except ValueError:
        raise ValueError("is not a number, such as 12.5") from None
    if not math.isfinite(number):
        raise ValueError("is not a number, such as 12.5")
    return number


def _said_group(shape: Shape, form: Flat, errors: dict[str, str], name: str) -> Any:
    wrong: dict[str, str] = {}
    said: dict[str, Any] = {}
    is_touched = name == "input"
    for key, inner in shape.properties.items():
        value = say(inner, form, wrong, f"{name}.{key}")
        is_touched = is_touched or _is_touched(inner, value)
        if value is not BLANK:
            said[key] = value
        elif key in shape.needed:
            if inner.kind == "list":
                said[key] = []
            elif inner.is_nullable:
                said[key] = None
            elif inner.kind == "group":
                said[key] = {}
                wrong |= _needed_below(inner, f"{name}.{key}")
            else:
                wrong[f"{name}.{key}"] = NEEDED
    if not is_touched:
        return BLANK
    errors |= wrong
    return said


def _is_touched(shape: Shape, value: Any) -> bool:
    """Whether somebody has typed something there. A flag or a choice says its default by itself."""
    if value is BLANK:
        return False
    return shape.kind == "group" or value != shape.schema.get("default", False if shape.kind == "flag" else BLANK)


def _needed_below(shape: Shape, name: str) -> dict[str, str]:
    """What of a group is needed that was left out as a whole."""
    found: dict[str, str] = {}
    for key in shape.needed & shape.properties.keys():
        inner = shape.properties[key]
        if inner.kind == "group":
            found |= _needed_below(inner, f"{name}.{key}")
        elif inner.kind != "flag" and "default" not in inner.schema:
            found[f"{name}.{key}"] = NEEDED
    return found


def lines_of(form: Flat, name: str) -> int:
    """How many lines a list has."""
    text = form.get(f"{name}.#", "0")
    return min(int(text), MOST_LINES) if text.isascii() and text.isdigit() else 0


# --- how it looks -------------------------------------------------------------------------------------


def fields_of(shape: Shape, form: Flat, errors: Mapping[str, str]) -> list[Field]:
    """The fields of an input; a single one where it is no group."""
    made = _field(shape, form, errors, "input", "Input", is_needed=True)
    return made.below if shape.kind == "group" else [made]


def _field(shape: Shape, form: Flat, errors: Mapping[str, str], name: str, label: str, *, is_needed: bool) -> Field:
    made = Field(shape.kind, name, label, _hint(shape), is_needed, form.get(name, ""), errors.get(name, ""))
    if shape.kind == "group":
        made.below = [
            _field(inner, form, errors, f"{name}.{key}", key, is_needed=key in shape.needed)
            for key, inner in sorted(shape.properties.items(), key=lambda item: item[0] not in shape.needed)
        ]
    elif shape.kind == "list":
        count = max(1, lines_of(form, name))
        inner = shape.below(shape.schema["items"])
        made.value = str(count)
        made.below = [
            _field(inner, form, errors, f"{name}.{place}", f"{label} {place + 1}", is_needed=False)
            for place in range(count)
        ]
    elif shape.kind == "choice":
        made.options = [(payloads.encode(each), str(each)) for each in shape.options]
    elif shape.kind == "text":
        is_short = shape.schema.get("maxLength", LONG_TEXT + 1) <= LONG_TEXT
        long_name = name.rpartition(".")[2] in LONG_NAMES
        made.is_long = (long_name and not is_short) or len(made.value) > LONG_TEXT or "\n" in made.value
    return made


def _hint(shape: Shape) -> str:
    """What to type, in a few words."""
    schema = shape.schema
    told = [str(schema["description"])[:300]] if schema.get("description") else []
    if shape.kind == "number":
        told.append("a whole number" if schema.get("type") == "integer" else "a number")
        told += [f"from {schema['minimum']}"] if "minimum" in schema else []
        told += [f"to {schema['maximum']}"] if "maximum" in schema else []
    if shape.kind == "json":
        told.append("JSON")
    if shape.kind == "text" and isinstance(schema.get("format"), str):
        told.append(schema["format"])
    return ", ".join(told)
