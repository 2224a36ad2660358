"""A webhook from the command line to a receiver that fails first: signed, tried again, its attempts visible."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pilothouse.engine.webhooks import sign
from tests.cli.conftest import Shell, until
from tests.patience import WAIT_SECONDS
from tests.web.scripted import Answer, Script, scripted

SECRET = "a-secret-of-many-characters"


@pytest.fixture
def receiver() -> Iterator[Script]:
    with scripted(Answer("not yet", 500), Answer("", 204)) as script:
        yield script


@pytest.mark.slow
def test_a_run_is_told_until_the_receiver_takes_it(shell: Shell, receiver: Script) -> None:
    shell("init", "mine")
    inside = Shell(shell.folder / "mine")
    process = inside.start("up", "--port", "0", PILOTHOUSE_WEBHOOK_SECRET=SECRET)
    try:
        until(lambda: "pilothouse.webhook" in inside("agents", "list").out, "the delivery agent")
        told = inside("submit", "hello", '{"name": "Ada"}', "--webhook-url", f"{receiver.url}/hook", "--json").json
        until(lambda: not receiver.answers, "two deliveries")
        until(lambda: delivery(inside)["state"] == "succeeded", "the delivery to succeed")
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)

    first, second = receiver.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery(inside)["id"]
    for asked in receiver.asked:
        stamp, signature = int(asked.headers["webhook-timestamp"]), asked.headers["webhook-signature"]
        assert signature == sign(SECRET, asked.headers["webhook-id"], stamp, asked.text)
    assert second.body["type"] == "run.succeeded"
    assert (second.body["data"]["id"], second.body["data"]["output"]) == (told["id"], "Hello, Ada!")
    shown = inside("runs", "show", delivery(inside)["id"], "--json").json
    assert [attempt["state"] for attempt in shown["attempts"]] == ["failed", "succeeded"]
    assert "the receiver answered 500: not yet" in shown["attempts"][0]["error"]["message"]
    assert "***" in inside("config", "show", PILOTHOUSE_WEBHOOK_SECRET=SECRET).out
    assert SECRET not in json.dumps(shown)


def delivery(shell: Shell) -> dict[str, str]:
    (row,) = shell("runs", "list", "--agent", "pilothouse.webhook", "--json").json
    return dict(row)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """HMAC-SHA256 over id.timestamp.body, base64, after the version: computed by hand with openssl."""
    assert sign("whsec_a2V5", "msg_1", 1, "") == sign("key", "msg_1", 1, "")
    assert sign("key", "msg_1", 1_700_000_000, '{"a":1}') == "v1,KSgv0SSgWzG5LPnm9tfWJRfBlWqAqHz+OlObgspQi/g="
