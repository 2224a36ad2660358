"""What both clients do when a server fails: again where that is safe, once where it is not, and streams go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse import AsyncClient, Client
from pilothouse.client import TRIES, Event
from pilothouse.errors import ConfigError, PilothouseError, SchemaError, StoreFull, StoreUnavailable
from tests.web.scripted import Answer, Script, events, problem, scripted

AWAY = problem("store_unavailable", 503, retry_after="0")
QUEUED = Answer('{"id": "r", "state": "queued"}', 202)
RUN = Answer('{"id": "r", "state": "failed"}')
END = ("id: 2.0", "event: end", 'data: {"state": "succeeded"}', "")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.client.PAUSE_SECONDS", (0.0,))


@pytest.fixture(params=["blocking", "asynchronous"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of one client, then of the other; `events` gives the list of them."""
    return _call if request.param == "blocking" else _call_asynchronous


async def _call(url: str, method: str, *arguments: Any, **options: Any) -> Any:
    def work() -> Any:
        with Client(url) as client:
            answer = getattr(client, method)(*arguments, **options)
            return list(answer) if method == "events" else answer

    return await asyncio.to_thread(work)


async def _call_asynchronous(url: str, method: str, *arguments: Any, **options: Any) -> Any:
    async with AsyncClient(url) as client:
        answer = getattr(client, method)(*arguments, **options)
        return [event async for event in answer] if method == "events" else await answer


def keys_of(script: Script) -> list[str]:
    return [asked.body["idempotency_key"] for asked in script.asked]


async def test_a_submit_is_sent_again_with_the_same_key(call: Callable[..., Any]) -> None:
    with scripted(AWAY, AWAY, QUEUED) as script:
        submitted = await call(script.url, "submit", "hello", {"name": "Ada"})

    assert submitted["id"] == "r"
    assert len(script.asked) == 3
    assert len(set(keys_of(script))) == 1
    assert keys_of(script)[0].startswith("client:")


async def test_two_submits_have_keys_of_their_own_unless_they_are_given(call: Callable[..., Any]) -> None:
    with scripted(QUEUED, QUEUED, QUEUED) as script:
        for options in ({}, {}, {"idempotency_key": "mine"}):
            await call(script.url, "submit", "hello", **options)

    first, second, third = keys_of(script)
    assert first != second
    assert third == "mine"


async def test_many_submits_are_sent_again_with_the_same_keys(call: Callable[..., Any]) -> None:
    with scripted(AWAY, Answer('{"runs": [{"id": "r"}, {"id": "s"}]}')) as script:
        await call(script.url, "submit_many", [{"agent": "a"}, {"agent": "b", "idempotency_key": "mine"}])

    first, second = ([run["idempotency_key"] for run in asked.body["runs"]] for asked in script.asked)
    assert first == second
    assert first[1] == "mine"


async def test_a_read_is_tried_a_bounded_number_of_times(call: Callable[..., Any]) -> None:
    with scripted(*[AWAY] * (TRIES + 1)) as script, pytest.raises(StoreUnavailable):
        await call(script.url, "get", "r")

    assert len(script.asked) == TRIES


async def test_a_redrive_is_never_sent_twice(call: Callable[..., Any]) -> None:
    with (
        scripted(problem("store_unavailable", 503, retry_after="7"), RUN) as script,
        pytest.raises(StoreUnavailable) as raised,
    ):
        await call(script.url, "redrive", "r")

    assert len(script.asked) == 1
    assert raised.value.retry_after_seconds == 7


@pytest.mark.parametrize(("code", "kind"), [("store_full", StoreFull), ("schema_mismatch", SchemaError)])
async def test_failures_of_the_store_keep_their_kind(
    call: Callable[..., Any], code: str, kind: type[Exception]
) -> None:
    with scripted(problem(code, 503, retry_after="0")) as script, pytest.raises(kind, match=f"this is {code}"):
        await call(script.url, "redrive", "r")


async def test_a_cut_stream_goes_on_after_its_last_event(call: Callable[..., Any]) -> None:
    first = events("id: 1.0", "event: state", 'data: {"n": 1}', "", "id: 2.0", "event: state")

    with scripted(first, AWAY, events(*END)) as script:
        seen = await call(script.url, "events", "r")

    assert seen == [Event("1.0", "state", {"n": 1}), Event("2.0", "end", {"state": "succeeded"})]
    assert [asked.last_event_id for asked in script.asked] == [None, "1.0", "1.0"]


async def test_a_stream_of_all_events_loses_none_to_a_cut_before_its_first(call: Callable[..., Any]) -> None:
    latest = Answer('{"items": [{"seq": 41}], "next": 41}')

    with scripted(latest, events(": ping"), events("id: 42", "event: end", "data: {}", "")) as script:
        await call(script.url, "events")

    assert [(asked.path.partition("?")[0][-7:], asked.last_event_id) for asked in script.asked] == [
        ("1/audit", None),
        ("/events", "41"),
        ("/events", "41"),
    ]


async def test_a_stream_that_stays_away_is_given_up(call: Callable[..., Any]) -> None:
    with scripted(*[events()] * TRIES) as script, pytest.raises(StoreUnavailable, match="is `pilothouse up` running"):
        await call(script.url, "events", "r")

    assert len(script.asked) == TRIES


@pytest.mark.parametrize("answer", [Answer("<html>"), Answer("<html>", 404), Answer('"text"', 500)])
async def test_the_answer_of_another_server_is_told(call: Callable[..., Any], answer: Answer) -> None:
    with (
        scripted(answer) as script,
        pytest.raises(PilothouseError, match="is this the address of Pilothouse") as raised,
    ):
        await call(script.url, "get", "r")

    assert f"{script.url}/api/v1/runs/r answered {answer.status}" in str(raised.value)


def test_the_api_key_goes_along() -> None:
    client = Client("http://127.0.0.1:1/", "secret")

    assert client._http.headers["authorization"] == "Bearer secret"
    assert str(client._http.base_url) == "http://127.0.0.1:1/api/v1/"
    client.close()


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://host"])
def test_what_is_no_url_of_a_server_is_refused_at_once(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match="is not the URL of a server"):
            kind(url)
