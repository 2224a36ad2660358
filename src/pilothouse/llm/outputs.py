"""The form that an answer is wanted in, and whether what a model said fits it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.tools import ToolDefinition

FINAL = "final_result"
"""The tool by which a model gives an answer that has a form: every provider can hold a model to a tool's schema."""

VALUE = "value"
"""The field around an answer that is no object: tools take objects."""

ERRORS_TOLD = 10

_FENCED = re.compile(r"```(?:json)?\s*(?P<inside>.*?)```", re.DOTALL)


class Problem(NamedTuple):
    """What is wrong with an answer, in words for the model."""

    message: str


class Form(NamedTuple):
    """What a type comes to: what validates it, and its schema, in an object around it where it is none itself."""

    adapter: TypeAdapter[Any]
    schema: Mapping[str, Any]
    is_wrapped: bool


class Output:
    """The wanted type. Text is taken as it is; anything else is validated."""

    def __init__(self, type: Any) -> None:
        self.is_text = type is str
        self._form = TEXT if self.is_text else form_of(type)

    @property
    def schema(self) -> Mapping[str, Any]:
        return self._form.schema

    def parameters(self, tools: list[ToolDefinition]) -> ModelRequestParameters:
        """What goes to the model beside the messages."""
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.tools import ToolDefinition

        if self.is_text:
            return ModelRequestParameters(function_tools=tools)
        final = ToolDefinition(
            name=FINAL,
            parameters_json_schema=dict(self.schema),
            description="Give the final answer in this form.",
            kind="output",
        )
        return ModelRequestParameters(
            function_tools=tools, output_mode="tool", output_tools=[final], allow_text_output=False
        )

    def read(self, response: ModelResponse) -> Any | Problem:
        """The answer in the wanted type, or what is wrong with it."""
        text = response.text or ""
        if self.is_text:
            return text
        final = next((call for call in response.tool_calls if call.tool_name == FINAL), None)
        if final is None:
            return self._validate(_json_in(text), text)
        return self._validate_call(final)

    def _validate_call(self, final: ToolCallPart) -> Any | Problem:
        try:
            return self._validate(json.loads(final.args) if isinstance(final.args, str) else final.args, "")
        except ValueError as error:
            return Problem(f"The answer is not JSON: {error}.")

    def _validate(self, said: Any, text: str) -> Any | Problem:
        if said is None and text:
            return Problem(f"Give the answer by calling {FINAL}, not as text.")
        inside = said.get(VALUE) if self._form.is_wrapped and isinstance(said, dict) and VALUE in said else said
        try:
            return self._form.adapter.validate_python(inside)
        except ValidationError as error:
            told = [f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors()]
            return Problem("The answer does not fit: " + "; ".join(told[:ERRORS_TOLD]))


def form_of(type: Any) -> Form:
    """Worked out once for each type and its look: `int | str` equals `str | int`, and has another schema."""
    try:
        return _known_form(type, repr(type))
    except TypeError:  # no hash, such as that of an annotation with a list
        return _form(type, "")


def _form(type: Any, _look: str) -> Form:
    adapter: TypeAdapter[Any] = TypeAdapter(type)
    schema = adapter.json_schema()
    is_wrapped = schema.get("type") != "object" and "$ref" not in schema
    return Form(adapter, _wrapped(schema) if is_wrapped else schema, is_wrapped)


_known_form = lru_cache(maxsize=256)(_form)


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object around a schema, whose definitions move to the top."""
    inside = dict(schema)
    definitions = inside.pop("$defs", None)
    wrapped: dict[str, Any] = {"type": "object", "properties": {VALUE: inside}, "required": [VALUE]}
    return wrapped | ({"$defs": definitions} if definitions else {})


def _json_in(text: str) -> Any:
    """The JSON of a text: all of it, or what stands between fences."""
    fenced = _FENCED.search(text)
    for candidate in (text, fenced["inside"] if fenced else ""):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return None


TEXT = Form(TypeAdapter(str), {}, is_wrapped=False)
