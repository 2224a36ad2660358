"""What a handler takes and returns: how an input is turned into arguments, a result into JSON, both into schemas."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pilothouse import payloads
from pilothouse.errors import ConfigError, FieldError, InvalidInput, ResultError

Handler = Callable[..., Any]
CONTEXT_NAMES = frozenset({"Context", "SyncContext"})
SCALARS = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Signature:
    """A handler's input and output.

    `takes_context`: its first parameter is the context. `whole` names the one parameter that takes the whole input;
    where it is None, the fields of the input are spread over the parameters by name.
    """

    takes_context: bool
    whole: str | None
    input: TypeAdapter[Any]
    output: TypeAdapter[Any]

    def arguments(self, agent: str, value: object) -> dict[str, Any]:
        """The handler's keyword arguments. Raises InvalidInput that names each field."""
        try:
            parsed = self.input.validate_python(value)
        except ValidationError as error:
            fields = [FieldError(_path("input", item["loc"]), item["msg"]) for item in error.errors()]
            told = "; ".join(f"{field.field}: {field.message}" for field in fields[:5])
            raise InvalidInput(f"the input does not fit agent {agent!r}: {told}", fields) from None
        if self.whole is not None:
            return {self.whole: parsed}
        return dict(vars(parsed))

    def schemas(self) -> tuple[str, str]:
        """JSON Schemas of input and output, as canonical text."""
        return _schema(self.input, "validation"), _schema(self.output, "serialization")


def read_signature(handler: Handler, name: str) -> Signature:
    """Looks at a handler. Raises ConfigError that names the agent and the parameter that cannot be used."""
    hints = _type_hints(handler, name)
    parameters = list(inspect.signature(handler).parameters.values())
    takes_context = bool(parameters) and _is_context(parameters[0], hints)
    inputs = parameters[1:] if takes_context else parameters
    for parameter in inputs:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"agent {name!r}: parameter {parameter} cannot be filled from JSON; name each parameter")
    try:
        whole, adapter = _input_adapter(inputs, hints)
        signature = Signature(takes_context, whole, adapter, TypeAdapter(hints.get("return", Any)))
        signature.schemas()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise ConfigError(f"agent {name!r}: its types cannot be read from JSON: {error}") from error
    return signature


def _type_hints(handler: Handler, name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise ConfigError(f"agent {name!r}: a type annotation cannot be resolved: {error}") from error


def _is_context(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return parameter.name == "ctx" or getattr(hint, "__name__", None) in CONTEXT_NAMES


def _input_adapter(inputs: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[str | None, TypeAdapter[Any]]:
    if len(inputs) == 1 and inputs[0].default is inspect.Parameter.empty:
        adapter: TypeAdapter[Any] = TypeAdapter(hints.get(inputs[0].name, Any))
        if _takes_objects(adapter.json_schema()):
            return inputs[0].name, adapter
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in inputs
    }
    model: type[BaseModel] = create_model("Input", __config__=ConfigDict(extra="forbid"), **fields)
    return None, TypeAdapter(model)


def _takes_objects(schema: dict[str, Any]) -> bool:
    """Whether a type is an object in JSON (a model, a dataclass, a dict) or anything at all."""
    definitions = schema.get("$defs", {})

    def is_object(part: dict[str, Any]) -> bool:
        if "$ref" in part:
            return is_object(definitions[part["$ref"].rsplit("/", 1)[-1]])
        options = part.get("anyOf") or part.get("oneOf")
        if options:
            return all(is_object(option) for option in options)
        return part.get("type", "object") == "object" and "const" not in part and "enum" not in part

    return is_object(schema)


def _schema(adapter: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"]) -> str:
    return payloads.encode(adapter.json_schema(mode=mode))


def _path(root: str, location: tuple[int | str, ...]) -> str:
    return ".".join([root, *(str(part) for part in location)])


def encode_result(value: object, adapter: TypeAdapter[Any] | None, where: str) -> str:
    """A result as canonical JSON. Raises ResultError that names where it came from and its type."""
    try:
        if type(value) in SCALARS:
            return payloads.encode(value)
        chosen = adapter if adapter is not None else any_adapter()
        text = payloads.encode(chosen.dump_python(value, mode="json", warnings="error"))
        if "null" in text:
            payloads.refuse_nan(to_jsonable_python(value, inf_nan_mode="constants", fallback=str))
        return text
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ResultError(
            f"{where} returned a {type(value).__name__} that cannot be stored: {error}; "
            "return JSON data, a dataclass or a Pydantic model"
        ) from error


def decode_result(text: str, adapter: TypeAdapter[Any] | None) -> Any:
    """The value of a stored result, in the type that `adapter` stands for."""
    value = payloads.decode(text)
    if adapter is None or type(value) in SCALARS:
        return value
    return adapter.validate_python(value)


@lru_cache(maxsize=1)
def any_adapter() -> TypeAdapter[Any]:
    return TypeAdapter(Any)


class StepTraits(NamedTuple):
    """What a step's function is: its name as a request shows it, its return type, and whether it is called in a thread.

    `output` is None where the annotation says nothing that can be read back.
    """

    name: str
    output: TypeAdapter[Any] | None
    is_async: bool


@lru_cache(maxsize=1024)
def step_traits(function: Handler) -> StepTraits:
    """Looked up once per function."""
    name = getattr(function, "__qualname__", repr(type(function)))
    return StepTraits(name, _result_adapter(function), inspect.iscoroutinefunction(function))


def _result_adapter(function: Handler) -> TypeAdapter[Any] | None:
    try:
        hint = typing.get_type_hints(function, include_extras=True).get("return", Any)
        return None if hint is Any else TypeAdapter(hint)
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUserError):
        return None
