"""What comes in: bodies read once and within a bound, parsed once, and held against a model that names each field."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic import Field as PydanticField
from pydantic.json_schema import WithJsonSchema
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from pilothouse.clock import from_datetime
from pilothouse.control.runs import MAX_KEY_LENGTH
from pilothouse.web.backend import backend_of
from pilothouse.web.problems import BROKEN_JSON, TOO_LARGE, field_errors, invalid

Model = TypeVar("Model", bound=BaseModel)

MAX_REASON_LENGTH = 2000
MAX_INTEGER = 2**63 - 1
LATEST_YEAR = 9000
"""Later instants leave no room for the time-outs that are added to them."""


class Body(BaseModel):
    """What every request body is: no conversions, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("may not contain the character NUL")
    return text


def _parse_instant(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("must be text in ISO 8601 with a time zone, such as 2026-01-31T09:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        instant = from_datetime(moment)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{value!r} is not an instant in ISO 8601 with a time zone, such as 2026-01-31T09:00:00Z"
        ) from error
    if instant < 0 or moment.year > LATEST_YEAR:
        raise ValueError(f"must lie between 1970 and {LATEST_YEAR}")
    return instant


Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH), AfterValidator(_without_nul)]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON_LENGTH), AfterValidator(_without_nul)]
Instant = Annotated[int, BeforeValidator(_parse_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Number = Annotated[int, PydanticField(ge=0, le=MAX_INTEGER)]
"""A number of a record: what a database's 64-bit column can hold."""


async def read_model(request: Request, model: type[Model]) -> Model:
    """The body as `model`; an empty one counts as `{}`. Raises InvalidInput that names each field."""
    return parse(await read_json(request, empty={}), model)


def parse(data: object, model: type[Model]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid(field_errors(error.errors(include_url=False, include_context=False))) from error


async def read_json(request: Request, *, empty: Any) -> Any:
    """The JSON of the body; `empty` where there is none. Refuses broken JSON with the place of the mistake."""
    body = await _read_body(request)
    if not body:
        return empty
    try:
        return from_json(body, allow_inf_nan=False)  # unlike orjson it does not round integers beyond 64 bits
    except ValueError as error:
        raise HTTPException(BROKEN_JSON, f"the body is not JSON: {error}") from error


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; of a field that comes twice the last."""
    body = await _read_body(request)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


async def _read_body(request: Request) -> bytes:
    limit = backend_of(request).settings.max_input_bytes
    if int(request.headers.get("content-length", 0)) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> HTTPException:
    detail = f"the body is larger than {limit} bytes; send less, or raise PILOTHOUSE_MAX_INPUT_BYTES"
    return HTTPException(TOO_LARGE, detail, {"Connection": "close"})
