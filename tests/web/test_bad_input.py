"""Inputs that no store takes, over HTTP: refused by name, and the server goes on."""

from __future__ import annotations

import httpx2
import pytest

from tests.web.platform import FakeWorker

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"agent": "greet", "input": {"name": NaN}}', "JSON"),
        (b'{"agent": "greet", "input": {"name": Infinity}}', "JSON"),
        (b'{"agent": "greet", "input": {"name": 1e999}}', ""),
        (b'{"agent": "greet", "input": {"name": "\\ud800"}}', ""),
        (b'{"agent": "greet", "input": {"name": "\xff"}}', ""),
        (b'{"agent": "\\udfff", "input": {}}', ""),
        (b"[" * 90_000, ""),
        (b'{"agent": "greet", "input": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", ""),
        (b'{"agent": "greet"', "JSON"),
        (b"", ""),
    ],
)
async def test_what_cannot_be_stored_is_refused_and_told(
    api: httpx2.AsyncClient, worker: FakeWorker, body: bytes, told: str
) -> None:
    answer = await api.post("/api/v1/runs", content=body, headers=JSON)

    assert answer.status_code in (400, 404, 422), answer.text
    assert told in answer.json()["detail"]
    assert (await api.get("/api/v1/runs")).json()["items"] == []
