"""A client that holds every answer against the OpenAPI document: its media type, and its shape."""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs
from fastapi import FastAPI

from pilothouse.config import load_settings
from pilothouse.control.runs import Submitter
from pilothouse.store.database import open_database
from pilothouse.web.server import create_server

BASE_URL = "http://127.0.0.1:8000"


@cache
def documentation() -> dict[str, Any]:
    """Of every server: their routes are the same, and to describe them takes half a second."""
    db = open_database("sqlite:///never-opened.db")
    return create_server(db, Submitter(db), load_settings(), asyncio.Event()).openapi()


def documented_client(app: FastAPI) -> httpx2.AsyncClient:
    document = documentation()

    async def check(response: httpx2.Response) -> None:
        await response.aread()
        operation = _operation(document, response.request.method, response.request.url.path)
        if operation is not None:
            _check(document, operation, response)

    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url=BASE_URL, event_hooks={"response": [check]})


def _operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    for template, methods in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            operation: dict[str, Any] | None = methods.get(method.lower())
            return operation
    return None


def _check(document: dict[str, Any], operation: dict[str, Any], response: httpx2.Response) -> None:
    name, answers = operation["operationId"], operation["responses"]
    documented = answers.get(str(response.status_code), answers["default"])["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in documented, f"{name} answered {response.status_code} with {media_type}: {response.text}"
    if not media_type.endswith("json"):
        return
    schema = {**documented[media_type]["schema"], "components": document["components"]}
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    errors = [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(response.json())]
    assert not errors, f"{name} answered what it does not document: {errors}"
