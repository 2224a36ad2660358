"""The OpenAPI document: what FastAPI finds by itself, the bodies that routes parse themselves, and problem details."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pilothouse.web import schemas
from pilothouse.web.problems import MEDIA_TYPE

REFERENCE = "#/components/schemas/{model}"

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "As `idempotency_key` in the body, which may not differ. Sent again, it creates nothing twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C Trace Context: the run and all that it starts belong to this trace. One that is not valid is "
    "ignored.",
    "schema": {"type": "string", "maxLength": 255},
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused or failed: problem details (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=schemas.Problem.__name__)}}},
    }
}


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """What a route that parses its own body says of it."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}
    return {"requestBody": {"required": required, "content": content}}


def takes_key(model: type[BaseModel]) -> dict[str, Any]:
    """As `takes`, of a route that creates and so heeds an idempotency key."""
    return {**takes(model), "parameters": [IDEMPOTENCY_KEY, TRACEPARENT]}


def gives(model: type[BaseModel], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """What a route that makes its own response says of it."""
    return {status: {"model": model}, **PROBLEMS}


def install(app: FastAPI, bodies: list[type[BaseModel]]) -> None:
    """Makes the application's document complete; `bodies` are the models that `takes` was given."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _document(app: FastAPI, bodies: list[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    models: list[type[BaseModel]] = [*bodies, schemas.Problem]
    _, own = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    document.setdefault("components", {}).setdefault("schemas", {}).update(own["$defs"])
    return document
