"""Problem details (RFC 9457): the one form of every answer that is not what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from pilothouse.errors import (
    Conflict,
    FieldError,
    Forbidden,
    InvalidInput,
    NotFound,
    PilothouseError,
    QueueFull,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    SwitchedOff,
    TryLater,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:pilothouse:problem:"
BROKEN_JSON = 400
TOO_LARGE = 413

_STORE_ERRORS = (StoreUnavailable, StoreReadOnly, SchemaError)
_REFUSAL_STATUSES: Mapping[type[PilothouseError], int] = {
    NotFound: 404,
    Conflict: 409,
    SwitchedOff: 409,
    InvalidInput: 422,
    QueueFull: 429,
    Forbidden: 403,
}
_HTTP_CODES = {BROKEN_JSON: "broken_json", TOO_LARGE: "too_large"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal or failure. `code` is for programs, `detail` for people; `error_id` is found in the log."""

    status: int
    code: str
    detail: str
    fields: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    error_id: str | None = None

    def body(self, instance: str) -> dict[str, Any]:
        """What the answer says. `instance` is the path, or the place in a batch, that the problem is about."""
        told: dict[str, Any] = {
            "type": TYPE_PREFIX + self.code,
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "instance": instance,
        }
        if self.fields:
            told["errors"] = [{"field": each.field, "message": each.message} for each in self.fields]
        if self.error_id is not None:
            told["error_id"] = self.error_id
        return told

    def response(self, instance: str) -> Response:
        return Response(orjson.dumps(self.body(instance)), self.status, dict(self.headers), MEDIA_TYPE)


def problem_of(error: PilothouseError) -> Problem | None:
    """The problem that an error is to the caller; None where it is our own failure."""
    for kind, status in _REFUSAL_STATUSES.items():
        if isinstance(error, kind):
            fields = error.fields if isinstance(error, InvalidInput) else ()
            return Problem(status, error.code, str(error), fields, _retry_after(error))
    if isinstance(error, _STORE_ERRORS):
        return Problem(503, error.code, str(error), headers=_retry_after(error))
    return None


def _retry_after(error: PilothouseError) -> dict[str, str]:
    if isinstance(error, (TryLater, StoreUnavailable)):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
    return {}


def field_errors(errors: Sequence[ErrorDetails | dict[str, Any]], *, skip: int = 0) -> list[FieldError]:
    """The fields that Pydantic names. `skip` leaves out the first parts of each place, such as `query`."""
    return [_field_error(error, skip) for error in errors]


def _field_error(error: ErrorDetails | dict[str, Any], skip: int) -> FieldError:
    place = ".".join(str(part) for part in error["loc"][skip:])
    message = "this key is not known here" if error["type"] == "extra_forbidden" else error["msg"]
    return FieldError(place or "body", message.removeprefix("Value error, "))


def invalid(fields: Sequence[FieldError]) -> InvalidInput:
    told = "; ".join(f"{each.field}: {each.message}" for each in fields[:5])
    return InvalidInput(f"the request does not fit: {told}", fields)


def install(app: FastAPI, methods_of: Callable[[str], set[str]]) -> None:
    """Makes every error that a route or the router raises a problem. `methods_of` a path says what it answers."""

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http_problem(request, error, methods_of).response(request.url.path)

    app.add_exception_handler(PilothouseError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, answer_http)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PilothouseError)
    problem = problem_of(error)
    if problem is None:
        raise error
    return problem.response(request.url.path)


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _answer_error(request, invalid(field_errors(error.errors(), skip=1)))


def _http_problem(request: Request, error: HTTPException, methods_of: Callable[[str], set[str]]) -> Problem:
    path, headers = request.url.path, error.headers or {}
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {path}; /api/v1/openapi.json lists what there is"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(sorted(methods_of(path)))}  # the router tells only those of the first route
            detail = f"{path} does not answer {request.method}; it answers {headers['Allow']}"
        case _:
            detail = str(error.detail)
    code = _HTTP_CODES.get(error.status_code) or HTTPStatus(error.status_code).name.lower()
    return Problem(error.status_code, code, detail, headers=headers)
