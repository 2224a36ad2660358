"""Messages of alerts: by mail, Telegram and webhook to local servers, once each, also over the end of a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.config import Settings, load_settings
from pilothouse.control import alert_notices, switches
from pilothouse.control.switches import TripOrder
from pilothouse.domain.alerts import AlertChange, Severity
from pilothouse.domain.notices import MOST_TOLD, AlertNotice, alerts_body, alerts_subject
from pilothouse.errors import NotFound
from pilothouse.platform import Platform, Role
from pilothouse.store.migrations import migrate
from tests.engine.post import Post
from tests.patience import WAIT_SECONDS

SCOPE = "tool:nothing"


@pytest.fixture
def settings(tmp_path: Path, mail_port: int, hook_port: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BOTFATHERTOKEN", "123:bot-token")
    return load_settings(
        database_url=f"sqlite:///{tmp_path}/alerts.db?synchronous=normal",
        alert_channels=f"email:ops@example.com, telegram:42, webhook:http://127.0.0.1:{hook_port}/hook",
        smtp_url=f"smtp+plain://127.0.0.1:{mail_port}",
        mail_from="desk@example.com",
        telegram_url=f"http://127.0.0.1:{hook_port}",
        public_url="https://pilothouse.example",
        poll_interval_ms=20,
        alert_interval_seconds=0.05,
        alerts={"switch-tripped": AlertChange(severity=Severity.CRITICAL), "disk-low": AlertChange(enabled=False)},
    )


@asynccontextmanager
async def running(settings: Settings, *roles: Role) -> AsyncIterator[Platform]:
    app, stop = App("t"), asyncio.Event()

    @app.agent
    async def hello(ctx: Context) -> str:
        return "hello"

    async with Platform(settings, app, frozenset(roles)) as platform:
        await asyncio.to_thread(migrate, platform.db)
        serving = asyncio.create_task(platform.serve(stop))
        yield platform
        stop.set()
        await serving


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not look():  # noqa: ASYNC110 - other threads are looked at
            await asyncio.sleep(0.01)


def count(platform: Platform, sql: str) -> int:
    return int(platform.db.examine(lambda tx: tx.fetch_all(sql))[0]["found"])


AGENTS = "SELECT count(*) AS found FROM agents WHERE name = 'pilothouse.notify'"
QUEUED = "SELECT count(*) AS found FROM runs WHERE agent = 'pilothouse.notify'"
UNSENT = QUEUED + " AND state <> 'succeeded'"


async def test_the_start_and_the_end_of_an_alert_reach_every_channel_once(settings: Settings, post: Post) -> None:
    async with running(settings, "worker", "scheduler") as platform:
        await until(lambda: count(platform, AGENTS))
        await switches.trip_switch(platform.db, TripOrder(SCOPE, reason="odd answers"), principal="cli:ada")
        await until(lambda: post.mails and len(post.requests) == 2)

        mail = post.mails[0].replace("=\r\n", "").replace("\r\n", "\n")
        assert f"Subject: CRITICAL switch-tripped of switch:{SCOPE}" in mail
        assert f"switch {SCOPE} is tripped (hold) by cli:ada: odd answers" in mail
        assert "`pilothouse runbook show runaway-agent`" in mail
        bodies = dict(post.requests)
        (alert,) = bodies["/hook"]["alerts"]
        assert alert["url"] == f"https://pilothouse.example/alerts/{alert['id']}"
        assert alert["url"] in mail
        assert bodies["/bot123:bot-token/sendMessage"]["text"].startswith("CRITICAL switch-tripped")
        assert bodies["/hook"]["event"] == "alerts"
        assert [each["subject"] for each in bodies["/hook"]["alerts"]] == [f"switch:{SCOPE}"]
        assert bodies["/hook"]["text"].startswith("CRITICAL switch-tripped"), "what Slack shows"

        await switches.reset_switch(platform.db, SCOPE, principal="cli:ada")
        await until(lambda: len(post.mails) == 2 and len(post.requests) == 4)
        assert f"Subject: RESOLVED switch-tripped of switch:{SCOPE}" in post.mails[1]


async def test_what_was_queued_before_all_processes_ended_is_sent_once(settings: Settings, post: Post) -> None:
    async with running(settings, "worker") as platform:
        await until(lambda: count(platform, AGENTS))
    async with running(settings, "scheduler") as platform:
        await switches.trip_switch(platform.db, TripOrder(SCOPE), principal="cli:ada")
        await until(lambda: count(platform, QUEUED) == 3)
    assert (post.mails, post.requests) == ([], [])

    async with running(settings, "worker", "scheduler") as platform:
        await until(lambda: not count(platform, UNSENT))
        await until(lambda: count(platform, "SELECT count(*) AS found FROM leases WHERE name = 'alerts'"))

    assert (len(post.mails), len(post.requests)) == (1, 2)


async def test_a_test_message_is_sent_and_fails_visibly_where_nobody_can_send_it(
    settings: Settings, post: Post
) -> None:
    (mail, *_) = settings.told_channels
    async with running(settings, "scheduler") as platform:
        with pytest.raises(NotFound, match=r"pilothouse\.notify"):
            await alert_notices.send_test(platform.db, mail, principal="cli:ada")
    async with running(settings, "worker") as platform:
        await until(lambda: count(platform, AGENTS))
        await alert_notices.send_test(platform.db, mail, principal="cli:ada")
        await until(lambda: post.mails)

    assert "Subject: Test message of Pilothouse: alerts arrive here" in post.mails[0]


def notice(number: int, event: str = "firing") -> AlertNotice:
    return AlertNotice(
        event, f"id-{number}", "queue-age", f"agent:{number}", "warning", "text", "stuck-queue", "now", "https://p/x"
    )


def test_a_digest_names_the_first_and_counts_the_rest() -> None:
    notices = [notice(number, "firing" if number % 2 else "resolved") for number in range(50)]

    text = alerts_body(notices, "https://p")

    assert alerts_subject(notices) == "50 notices of alerts: 25 firing, 25 resolved"
    assert text.count("queue-age of agent:") == MOST_TOLD
    assert "… and 20 more: `pilothouse alerts list`" in text
    assert text.endswith("All alerts: https://p/alerts")


def test_a_text_that_is_too_long_is_cut_before_its_ending() -> None:
    text = alerts_body([notice(number) for number in range(30)], "https://p", limit=500)

    assert len(text) <= 500
    assert text.endswith("…\n\nAll alerts: https://p/alerts")
