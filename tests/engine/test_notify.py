"""Messages about approvals: by mail, Telegram and webhook, to local servers; each is sent by a durable run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse import App, Context
from pilothouse.config import Settings, load_settings
from pilothouse.control import approvals
from pilothouse.control.approvals import Filter, Handover
from pilothouse.domain.approvals import Decider
from pilothouse.domain.notices import read_link
from pilothouse.errors import ConfigError
from pilothouse.platform import Platform
from tests.engine.post import Post
from tests.patience import WAIT_SECONDS

SECRET = "a secret of sixteen"


@pytest.fixture
def settings(tmp_path: Path, mail_port: int, hook_port: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BOTFATHERTOKEN", "123:bot-token")
    return load_settings(
        database_url=f"sqlite:///{tmp_path}/notify.db?synchronous=normal",
        approval_channels=f"email:ops@example.com, telegram:42, webhook:http://127.0.0.1:{hook_port}/hook",
        approval_secret=SECRET,
        smtp_url=f"smtp+plain://127.0.0.1:{mail_port}",
        mail_from="desk@example.com",
        telegram_url=f"http://127.0.0.1:{hook_port}",
        public_url="https://pilothouse.example",
        poll_interval_ms=20,
    )


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    from pilothouse.store.migrations import migrate

    app = App("t")

    @app.agent
    async def asker(ctx: Context, risk: int = 2) -> str:
        decision = await ctx.approve("plan", recommendation="do it", reasoning="why not", arguments={}, risk=risk)
        return str(decision.decided_by)

    stop = asyncio.Event()
    async with Platform(settings, app, frozenset({"worker", "scheduler"})) as platform:
        await asyncio.to_thread(migrate, platform.db)
        serving = asyncio.create_task(platform.serve(stop))
        yield platform
        stop.set()
        await serving


async def until(look: Any) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := look()):  # noqa: ASYNC110 - other threads are looked at
            await asyncio.sleep(0.01)
    return found


async def ask(platform: Platform, **input: Any) -> None:
    from pilothouse.control.runs import Request
    from pilothouse.errors import NotFound

    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await platform.submitter.submit(Request("asker", input, principal="test"))
                return
            except NotFound:
                await asyncio.sleep(0.01)


async def test_everyone_is_told_with_links_that_decide_as_them(platform: Platform, post: Post) -> None:
    post.failures = 2
    await ask(platform)
    await until(lambda: post.mails and len(post.requests) == 2)

    (row,) = await approvals.list_approvals(platform.db, Filter(state="pending"))
    (mail,) = post.mails
    text = mail.replace("=\r\n", "").replace("=3D", "=").replace("\r\n", "\n")
    assert "Subject: Approval wanted: plan" in mail
    assert "Recommendation: do it" in text
    tokens = dict(re.findall(r"(\w+(?: \w+)*): https://pilothouse.example/approvals/link/(\S+)", text))
    links = {name: read_link(SECRET, token, now=0) for name, token in tokens.items()}
    assert {link.choice for link in links.values() if link} == {"approve", "reject", "revise"}
    assert {(link.approval_id, link.recipient) for link in links.values() if link} == {
        (row["id"], "email:ops@example.com")
    }
    bodies = dict(post.requests)
    assert bodies["/bot123:bot-token/sendMessage"]["chat_id"] == "42"
    assert bodies["/hook"]["approval"] == row["id"]
    assert set(bodies["/hook"]["links"]) == {"approve", "reject", "revise"}

    kept = await platform.db.read(_everything_kept)
    for token in tokens.values():
        assert token not in kept, "who may read runs could decide"
    assert "bot-token" not in kept


async def test_who_it_is_given_to_alone_gets_links(platform: Platform, post: Post) -> None:
    await ask(platform)
    await until(lambda: len(post.requests) == 2)
    (row,) = await approvals.list_approvals(platform.db, Filter(state="pending"))
    for to in ("telegram:42", "cli:grace"):
        post.requests.clear()
        handover = Handover(to, channels=platform.settings.channels)
        await approvals.delegate(platform.db, row["id"], handover, Decider("key:ada"))
        await until(lambda to=to: len(post.requests) == (1 if to == "telegram:42" else 2))

        texts = {path: body["text"] for path, body in post.requests}
        assert all(text.startswith(f"For {to} to decide: plan") for text in texts.values())
        assert all(("/approvals/link/" in text) is (to == "telegram:42") for text in texts.values())


def _everything_kept(tx: Any) -> str:
    found = []
    for run in tx.fetch_all(
        "list_runs_of_agent",
        before="~",
        floor="",
        limit=100,
        state=None,
        agent="pilothouse.notify",
        lane=None,
        tenant=None,
        version=None,
        created_after=None,
        created_before=None,
        text=None,
    ):
        found += tx.fetch_all("checkpoints_of_run", run_id=run["id"])
        found += tx.fetch_all("tool_calls_of_run", run_id=run["id"])
        found.append(tx.fetch_one("run_by_id", id=run["id"]))
    return str(found)


@pytest.mark.parametrize(("risk", "needs"), [(3, "a senior reviewer"), (4, "2 different people")])
async def test_a_message_about_what_needs_a_key_leads_to_the_page_alone(
    platform: Platform, post: Post, risk: int, needs: str
) -> None:
    await ask(platform, risk=risk)
    await until(lambda: len(post.requests) == 2)

    (row,) = await approvals.list_approvals(platform.db, Filter(state="pending"))
    told = dict(post.requests)["/hook"]
    assert told["links"] == {"decide": f"https://pilothouse.example/approvals/{row['id']}"}
    assert f"Needs: {needs}" in told["text"]


def test_a_channel_that_lacks_what_it_needs_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilothouse.tools.notices import notice_tools

    monkeypatch.delenv("BOTFATHERTOKEN", raising=False)
    with pytest.raises(ConfigError, match="needs smtp_url and mail_from"):
        load_settings(approval_channels="email:a@example.com")
    with pytest.raises(ConfigError, match="BOTFATHERTOKEN"):
        notice_tools(load_settings(approval_channels="telegram:1"))
    with pytest.raises(ConfigError, match="smtp_url is"):
        notice_tools(load_settings(approval_channels="email:a@example.com", smtp_url="x", mail_from="b@example.com"))
