"""Every error is a problem document: of unknown routes, of the store, and of what nobody foresaw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import structlog
from fastapi.routing import APIRoute

from pilothouse.control import runs
from pilothouse.errors import SchemaError, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from pilothouse.store.database import Database
from pilothouse.telemetry.logs import configure_logs, get_logger
from pilothouse.web import middleware
from pilothouse.web.problems import MEDIA_TYPE
from pilothouse.web.server import ROUTERS
from tests.web.platform import FakeWorker

RUNS = "/api/v1/runs"


@pytest.fixture
def log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = structlog.get_config()
    path = tmp_path / "api.log"
    configure_logs("debug", "json", f"file:{path}")
    monkeypatch.setattr(middleware, "_log", get_logger("pilothouse.web.middleware"))
    yield path
    structlog.configure(**before)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def raise_on_read(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(runs, "get_run", fail)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/v1/runs/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("PUT", "/api/v1/runs", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/api/v1/runs/a%00b", 400, "bad_address"),
        ("GET", "/api/v1/runs?agent=%00", 400, "bad_address"),
        ("GET", "/api/v1/audit/first", 422, "invalid_input"),
    ],
)
async def test_an_address_that_answers_nothing_is_a_problem(
    api: httpx2.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await api.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    problem = response.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:pilothouse:problem:{code}")
    assert problem["instance"] == response.request.url.path


async def test_a_wrong_method_is_told_the_right_ones(api: httpx2.AsyncClient) -> None:
    response = await api.delete(RUNS)

    assert set(response.headers["allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (StoreUnavailable("the server is gone", retry_after_seconds=1.2), "store_unavailable", "2"),
        (StoreFull("the disk of /data is full"), "store_full", "5"),
        (StoreReadOnly("/data is read-only"), "store_read_only", None),
        (SchemaError("the schema is older"), "schema_mismatch", None),
    ],
)
async def test_a_store_that_cannot_serve_is_503(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, retry_after: str | None
) -> None:
    raise_on_read(monkeypatch, error)

    response = await api.get(f"{RUNS}/x")

    assert (response.status_code, response.json()["code"]) == (503, code)
    assert response.json()["detail"] == str(error)
    assert response.headers.get("retry-after") == retry_after


async def test_a_store_that_is_closed_is_503(
    api: httpx2.AsyncClient, db: Database, worker: FakeWorker, log_file: Path
) -> None:
    db.close()

    submitted = await api.post(RUNS, json={"agent": "hello", "input": {"name": "Ada"}})
    read = await api.get(RUNS)

    assert [(each.status_code, each.json()["code"]) for each in (submitted, read)] == [(503, "store_unavailable")] * 2


@pytest.mark.parametrize("error", [RuntimeError("secret detail"), StoreError("statement 'x' failed: secret detail")])
async def test_a_failure_of_our_own_is_found_in_the_log_by_its_id(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, log_file: Path, error: Exception
) -> None:
    raise_on_read(monkeypatch, error)

    response = await api.get(f"{RUNS}/x")

    problem = response.json()
    assert (response.status_code, problem["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    (line,) = [line for line in lines_of(log_file) if line["level"] == "error"]
    assert line["context"]["error_id"] == problem["error_id"]
    assert "secret detail" in line["exception"]


async def test_each_request_is_one_line_at_debug(api: httpx2.AsyncClient, log_file: Path) -> None:
    await api.get("/health?token=secret")

    (line,) = [line for line in lines_of(log_file) if line["message"] == "http.request"]
    assert line["level"] == "debug"
    assert line["context"]["duration_ms"] >= 0
    del line["context"]["duration_ms"]
    assert line["context"] == {"method": "GET", "path": "/health", "status": 200}


async def test_the_document_describes_every_route_and_body(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/api/v1/openapi.json")).json()

    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    served = {f"{method} {route.path}" for route in _documented_routes() for method in route.methods or ()}
    assert set(operations) == served
    assert all("default" in operation["responses"] for operation in operations.values())
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert _dangling(document) == set()


def _documented_routes() -> list[APIRoute]:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return [route for route in routes if route.include_in_schema and "HEAD" not in (route.methods or ())]


def _dangling(document: dict[str, Any]) -> set[str]:
    """References to schemas that the document does not hold."""
    text = orjson.dumps(document).decode()
    wanted = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    return wanted - set(document["components"]["schemas"])
