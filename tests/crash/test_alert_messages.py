"""SIGKILL while alerts are told of: every message arrives, and none that was known to have arrived is sent again."""

from __future__ import annotations

import http.server
import json
import re
import socketserver
from collections import Counter
from collections.abc import Iterator

import pytest

from pilothouse.control import switches
from pilothouse.control.switches import TripOrder
from pilothouse.domain.alert_rules import NAMES
from tests.crash.processes import Fleet, eventually
from tests.engine.post import Hooks, Mailbox, Post, serving

ALERTS = 3
RULES = {name: {"enabled": False} for name in NAMES} | {"switch-tripped": {"severity": "critical"}}
ENDED = "SELECT input, state FROM runs WHERE agent = 'pilothouse.notify' AND state = 'succeeded'"
KNOWN = "SELECT count(*) AS found FROM agents WHERE name = 'pilothouse.notify'"


Served = tuple[Post, int]
"""What arrived at a local server, and its port."""


def _served(kind: type[socketserver.BaseServer], handler: type[socketserver.BaseRequestHandler]) -> Iterator[Served]:
    post = Post()
    yield from ((post, port) for port in serving(kind(("127.0.0.1", 0), handler), post))


@pytest.fixture
def chat() -> Iterator[Served]:
    yield from _served(http.server.ThreadingHTTPServer, Hooks)


@pytest.fixture
def hook() -> Iterator[Served]:
    yield from _served(http.server.ThreadingHTTPServer, Hooks)


@pytest.fixture
def mailbox() -> Iterator[Served]:
    yield from _served(socketserver.ThreadingTCPServer, Mailbox)


def start_worker(fleet: Fleet, name: str, settings: dict[str, str]) -> None:
    process = fleet.start(name, "worker", "--lanes", "critical=12,normal=1,low=1", **settings)
    eventually(lambda: fleet.worker_of(process.pid), f"{name} to register")


def sent(fleet: Fleet) -> Counter[str]:
    """How many messages are known to have arrived, by kind of channel."""
    rows = fleet.db.examine(lambda tx: tx.fetch_all(ENDED))
    return Counter(json.loads(row["input"])["channel"].partition(":")[0] for row in rows)


async def test_a_message_arrives_over_the_end_of_its_worker_and_is_known_by_its_key_when_it_comes_again(
    fleet: Fleet, chat: tuple[Post, int], hook: tuple[Post, int], mailbox: Served
) -> None:
    (chats, chat_port), (hooks, hook_port), (mails, mail_port) = chat, hook, mailbox
    settings = {
        "PILOTHOUSE_ALERT_CHANNELS": f"email:ops@example.com, telegram:42, webhook:http://127.0.0.1:{hook_port}/hook",
        "PILOTHOUSE_ALERT_INTERVAL_SECONDS": "0.1",
        "PILOTHOUSE_ALERTS": json.dumps(RULES),
        "PILOTHOUSE_LEASE_SECONDS": "5",  # a busy machine loses none of them before its time
        "PILOTHOUSE_SMTP_URL": f"smtp+plain://127.0.0.1:{mail_port}",
        "PILOTHOUSE_MAIL_FROM": "desk@example.com",
        "PILOTHOUSE_TELEGRAM_URL": f"http://127.0.0.1:{chat_port}",
        "BOTFATHERTOKEN": "123:bot-token",
    }
    hooks.answers.clear()
    fleet.start("scheduler", "scheduler", **settings)
    start_worker(fleet, "first", settings)
    eventually(lambda: fleet.db.examine(lambda tx: tx.fetch_all(KNOWN))[0]["found"], "the agent to be known")
    for number in range(ALERTS):
        await switches.trip_switch(fleet.db, TripOrder(f"tool:t{number}", reason="odd"), principal="test")

    eventually(lambda: len(hooks.requests) == ALERTS, "all webhooks to be asked")
    eventually(lambda: sent(fleet) == {"email": ALERTS, "telegram": ALERTS}, "all but webhooks to have arrived")
    fleet.kill("first")
    fleet.kill("scheduler")
    hooks.answers.set()
    fleet.start("next scheduler", "scheduler", **settings)
    start_worker(fleet, "second", settings)
    everything = {"email": ALERTS, "telegram": ALERTS, "webhook": ALERTS}
    eventually(lambda: sent(fleet) == everything, "all to have arrived")

    wanted = {f"switch:tool:t{number}" for number in range(ALERTS)}
    subjects = [re.findall(r"Subject: CRITICAL switch-tripped of (\S+)", mail) for mail in mails.mails]
    assert sorted(each[0] for each in subjects) == sorted(wanted), "each by mail, once"
    assert len({re.findall(r"Message-ID: (\S+)", mail)[0] for mail in mails.mails}) == ALERTS
    texts = [data["text"] for _, data in chats.requests]
    assert sorted(text.split()[3] for text in texts) == sorted(wanted), "each by Telegram, once"
    told = dict(zip(hooks.keys, (data["alerts"][0]["subject"] for _, data in hooks.requests), strict=True))
    assert sorted(told.values()) == sorted(wanted), "each by one key, that both requests bear"
    assert set(Counter(hooks.keys).values()) == {2}, "before the end of the worker and after it"
