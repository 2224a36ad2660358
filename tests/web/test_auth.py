"""Without API keys only this machine is answered, and only its own pages."""

from __future__ import annotations

import httpx2
import pytest

from pilothouse.web.auth import is_loopback

RUNS = "/api/v1/runs"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "app.localhost",
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
    ],
)
def test_names_and_addresses_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "[::]",
        "192.168.1.7",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
        "127.1",
        "*",
    ],
)
def test_what_others_can_reach_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:8000", "[::1]:8000"])
async def test_a_request_to_this_machine_is_answered(api: httpx2.AsyncClient, host: str) -> None:
    response = await api.get("/health", headers={"Host": host})

    assert response.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "10.0.0.5", "", "[::1", "localhost@evil.example"]
)
async def test_a_request_that_names_another_host_is_refused(api: httpx2.AsyncClient, host: str) -> None:
    response = await api.get("/health", headers={"Host": host})

    assert response.status_code == 403
    assert response.json()["code"] == "forbidden"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://[", ""])
async def test_another_sites_page_cannot_change_anything(api: httpx2.AsyncClient, origin: str) -> None:
    response = await api.post(RUNS, json={}, headers={"Origin": origin})

    assert response.status_code == 403


async def test_our_own_page_may(api: httpx2.AsyncClient) -> None:
    response = await api.post(RUNS, json={}, headers={"Origin": "http://127.0.0.1:8000"})

    assert response.status_code == 422


async def test_reading_across_origins_is_left_to_the_browser(api: httpx2.AsyncClient) -> None:
    response = await api.get(RUNS, headers={"Origin": "http://evil.example"})

    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
