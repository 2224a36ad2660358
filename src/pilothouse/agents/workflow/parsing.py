"""A workflow's text as the classes of the format; what does not fit is told in the words of the format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pilothouse.agents.workflow.format import WorkflowSpec
from pilothouse.agents.workflow.source import Location, Problem, Source, plain, suggestion

UNION_MARKS = frozenset({"str", "FieldObject", "list[str]", "int", "float"})
"""What Pydantic puts into a place for each side of a union; the file has no such key."""

KINDS = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What should stand in a place, by Pydantic's name of the mistake."""

LIMITS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda limit: f"must be more than {limit['gt']}",
    "greater_than_equal": lambda limit: f"must be at least {limit['ge']}",
    "less_than_equal": lambda limit: f"must be at most {limit['le']}",
    "literal_error": lambda limit: f"must be {limit['expected']}",
    "string_too_long": lambda limit: f"must have at most {limit['max_length']} characters",
    "too_short": lambda _: "must not be empty",
}


def parse(source: Source) -> WorkflowSpec:
    """Raises WorkflowError."""
    try:
        return WorkflowSpec.model_validate(plain(source.tree))
    except ValidationError as error:
        raise source.error(_problems(source, error.errors())) from None


def _problems(source: Source, found: Iterable[Any]) -> Iterator[Problem]:
    """A place where none of several kinds fits is told once; not at all where one fits, and its inside is wrong."""
    wanted: dict[Location, list[str]] = {}
    placed = [(_location(source, item["loc"]), item) for item in found]
    for location, item in placed:
        if item["type"] not in KINDS:
            yield _problem(location, item)
        elif not any(len(other) > len(location) and other[: len(location)] == location for other, _ in placed):
            wanted.setdefault(location, []).append(KINDS[item["type"]])
    for location, kinds in wanted.items():
        yield Problem(f"{_named(location)} must be {' or '.join(dict.fromkeys(kinds))}", location)


def _location(source: Source, given: Location) -> Location:
    """The place in the file, without the marks of unions."""
    here, kept = source.tree, list[str | int]()
    for part in given:
        has_it = part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int)
        if has_it or part not in UNION_MARKS:
            kept.append(part)
        here = here[part] if has_it else None if part not in UNION_MARKS else here
    return tuple(kept)


def _problem(location: Location, item: Any) -> Problem:
    match item["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            text = f"unknown key {location[-1]!r}{suggestion(str(location[-1]), known)}"
            return Problem(text, location, is_key=True)
        case "missing":
            return Problem(f"{location[-1]!r} is missing", location[:-1])
        case limit if limit in LIMITS:
            return Problem(f"{_named(location)} {LIMITS[limit](item['ctx'])}", location)
    message = str(item["msg"]).removeprefix("Value error, ")
    return Problem(f"{_named(location)}: {message}", location)


def _named(location: Location) -> str:
    return ".".join(map(str, location)) or "the workflow"


def _known_keys(location: Location) -> list[str]:
    """The keys that may stand at a place."""
    here: Any = WorkflowSpec
    for key in location:
        fields = getattr(here, "model_fields", None)
        named = _field(fields, key) if fields else None
        if named is not None:
            here = _inner_model(named.annotation)
    fields = getattr(here, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _field(fields: Mapping[str, Any], key: str | int) -> Any:
    return next((field for name, field in fields.items() if key in (name, field.alias)), None)


def _inner_model(annotation: Any) -> Any:
    """The class of a part inside a mapping, a list or a union."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    found = [_inner_model(each) for each in getattr(annotation, "__args__", ())]
    return next((each for each in found if each is not None), None)
