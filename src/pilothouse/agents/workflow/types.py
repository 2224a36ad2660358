"""Types of a workflow's fields: `str`, `int`, `float`, `bool`, `list[T]`, `dict[str, T]`, `object`, named objects, and
`T?` for what may be null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, create_model

from pilothouse.agents.workflow.format import FieldObject, FieldSpec
from pilothouse.agents.workflow.source import suggestion

SCALARS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
MAX_NESTING = 20


@dataclass(frozen=True, slots=True)
class Type:
    """`kind` is str, int, float, bool, list, dict, object or any. Lists and dicts have an `item`, objects `fields`. An
    optional one may be null.
    """

    kind: str
    item: Type | None = None
    fields: Mapping[str, Type] = field(default_factory=dict)
    name: str = ""
    is_optional: bool = False

    def __str__(self) -> str:
        return f"{self._plain_name()}?" if self.is_optional else self._plain_name()

    @property
    def one(self) -> str:
        """One value of it, in a sentence."""
        return f"an {self}" if str(self)[0] in "AEIOUaeiou" else f"a {self}"

    def _plain_name(self) -> str:
        match self.kind:
            case "list":
                return f"list[{self.item}]"
            case "dict":
                return f"dict[str, {self.item}]"
            case _:
                return self.name or self.kind

    def get(self, name: str) -> Type | None:
        """The type of a field, where there is one to be had."""
        match self.kind:
            case "any":
                return ANY
            case "dict":
                return self.item
            case "object":
                return self.fields.get(name) if self.fields else ANY
            case _:
                return None

    def takes(self, other: Type) -> bool:
        """Whether a value of `other` may stand where this type is wanted."""
        if "any" in (self.kind, other.kind):
            return True
        if other.is_optional and not self.is_optional:
            return False
        if self.kind == "float" and other.kind == "int":
            return True
        if self.kind == "dict" and other.kind == "object":
            return all(self.item is None or self.item.takes(each) for each in other.fields.values())
        if self.kind != other.kind:
            return False
        if self.item is not None and other.item is not None:
            return self.item.takes(other.item)
        return all(name in other.fields and type.takes(other.fields[name]) for name, type in self.fields.items())

    def python(self) -> Any:
        """The type as Pydantic validates it."""
        return Optional[self._plain_python()] if self.is_optional else self._plain_python()  # noqa: UP045 - of any form

    def _plain_python(self) -> Any:
        match self.kind:
            case "any":
                return Any
            case "list":
                assert self.item is not None
                return list[self.item.python()]  # type: ignore[misc]  # made at run time
            case "dict":
                assert self.item is not None
                return dict[str, self.item.python()]  # type: ignore[misc]  # made at run time
            case "object":
                return self._model() if self.fields else dict[str, Any]
            case scalar:
                return SCALARS[scalar]

    def _model(self) -> type[BaseModel]:
        fields: dict[str, Any] = {
            name: (type.python(), None if type.is_optional else ...) for name, type in self.fields.items()
        }
        return create_model(self.name or "Answer", __config__=ConfigDict(extra="forbid"), **fields)


ANY = Type("any")
TEXT, NUMBER, TRUTH = Type("str"), Type("float"), Type("bool")


class TypeProblem(ValueError):
    """A type that cannot be read; the message says why."""


class TypeReader:
    """Reads types; `named` are those under `types` of the workflow."""

    def __init__(self, named: Mapping[str, Mapping[str, FieldSpec]]) -> None:
        self._named = named

    def read(self, spec: FieldSpec, depth: int = 0) -> Type:
        """Raises TypeProblem."""
        if depth > MAX_NESTING:
            raise TypeProblem(f"types are nested more than {MAX_NESTING} deep; does one contain itself?")
        if isinstance(spec, FieldObject):
            if spec.fields is None:
                return self._expression(spec.type, depth)
            if spec.type != "object":
                raise TypeProblem(f"fields are for type: object, not for {spec.type}")
            return self._object("", spec.fields, depth)
        return self._expression(spec, depth)

    def _object(self, name: str, fields: Mapping[str, FieldSpec], depth: int) -> Type:
        return Type("object", fields={key: self.read(each, depth + 1) for key, each in fields.items()}, name=name)

    def _expression(self, text: str, depth: int) -> Type:
        text = text.strip()
        if text.endswith("?"):
            return replace(self._expression(text[:-1], depth + 1), is_optional=True)
        if text in SCALARS:
            return Type(text)
        if text in ("any", "object"):
            return Type(text)
        if text.startswith("list[") and text.endswith("]"):
            return Type("list", self._expression(text[5:-1], depth + 1))
        if text.startswith("dict[") and text.endswith("]"):
            return self._dict(text[5:-1], depth)
        if text in self._named:
            return self._object(text, self._named[text], depth)
        known = [*SCALARS, "object", "any", "list[…]", "dict[str, …]", *self._named]
        raise TypeProblem(f"there is no type {text!r}{suggestion(text, known)}")

    def _dict(self, inside: str, depth: int) -> Type:
        key, comma, value = inside.partition(",")
        if not comma:
            raise TypeProblem(f"dict[{inside}] needs two types, such as dict[str, int]")
        if key.strip() != "str":
            raise TypeProblem(f"keys of a dict are str in JSON, not {key.strip()}")
        return Type("dict", self._expression(value, depth + 1))


def default_of(spec: FieldSpec) -> Any:
    """A field's default, where it has one."""
    return spec.default if isinstance(spec, FieldObject) else None


def has_default(spec: FieldSpec) -> bool:
    return isinstance(spec, FieldObject) and "default" in spec.model_fields_set
