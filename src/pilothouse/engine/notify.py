"""The notifying agent: tells people of approvals and alerts by mail, Telegram or webhook; a message is an effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilothouse.clock import isoformat, parse_isoformat
from pilothouse.control import alert_notices, approvals
from pilothouse.control.asking import NOTIFY_AGENT
from pilothouse.domain.approvals import ApprovalState
from pilothouse.domain.lanes import Lane
from pilothouse.domain.notices import (
    CHOICES,
    LINK_SECONDS,
    AlertNotice,
    Link,
    alerts_body,
    alerts_subject,
    body,
    recipient_of,
    sign_link,
    subject,
)
from pilothouse.domain.retries import Backoff
from pilothouse.engine.agent import Agent, AgentOptions, make_agent
from pilothouse.engine.context import Context
from pilothouse.engine.tools import Tool
from pilothouse.errors import FatalError
from pilothouse.store.database import Database, Row

MAX_ATTEMPTS = 10
TELEGRAM_LIMIT = 4_000
BACKOFF = Backoff(first_seconds=5.0, limit_seconds=600.0)


@dataclass(frozen=True, slots=True)
class Post:
    """What messages are sent with: a tool per channel, and what their links are made of."""

    tools: Mapping[str, Tool]
    base_url: str
    secret: str | None = None


def make_notify_agent(db: Database, post: Post) -> Agent:
    """The agent that workers run beside those of their App, once they know of a channel."""

    async def notify(
        ctx: Context, channel: str, approval: str | None = None, event: str = "", message: str | None = None
    ) -> dict[str, Any]:
        """Tells people of an approval, or sends a message of alerts."""
        told = await (
            _approval(ctx, db, post, approval, channel, event) if approval else _alerts(db, post, channel, message)
        )
        if told.arguments is None:
            return {"told": False, "because": told.because}
        return {"told": True, "answer": await ctx.tool(_tool(post, channel), step_name="send", **told.arguments)}

    options = AgentOptions(
        lane=Lane.CRITICAL,
        max_attempts=MAX_ATTEMPTS,
        timeout_seconds=120.0,
        backoff=BACKOFF,
        description="Tells people of approvals and alerts.",
    )
    return make_agent(NOTIFY_AGENT, notify, options)


@dataclass(frozen=True, slots=True)
class _Told:
    """The arguments of the channel's tool, or why there is nothing to tell any more."""

    arguments: dict[str, Any] | None
    because: str = ""


def _tool(post: Post, channel: str) -> Tool:
    tool = post.tools.get(channel)
    if tool is None:
        raise FatalError(f"no worker of these settings sends to {channel.partition(':')[0]} channels like that")
    return tool


async def _approval(ctx: Context, db: Database, post: Post, approval: str, channel: str, event: str) -> _Told:
    found = await approvals.show_approval(db, approval)
    if found["state"] != ApprovalState.PENDING:
        return _Told(None, f"it is {found['state']} already")
    links = _links(post, found, channel, event)
    for url in links.values():
        ctx.attempt_state.hide(url.rpartition("/")[2])  # who may read runs may not decide by what they read there
    return _Told(_message(channel, found, event, links))


async def _alerts(db: Database, post: Post, channel: str, message: str | None) -> _Told:
    rows = await alert_notices.notices_of(db, message or "")
    notices = [_notice(row, post.base_url) for row in rows if row["id"] is not None]
    if not notices and not any(row["notice"] == "test" for row in rows):
        return _Told(None, "its alerts are gone")
    kind, _, target = channel.partition(":")
    title, text = alerts_subject(notices), alerts_body(notices, post.base_url)
    match kind:
        case "email":
            return _Told({"to": target, "subject": title, "body": text})
        case "telegram":
            return _Told({"text": alerts_body(notices, post.base_url, limit=TELEGRAM_LIMIT)})
        case _:
            alerts = [asdict(each) for each in notices]
            return _Told(
                {"data": {"text": f"{title}\n\n{text}", "event": "alerts" if alerts else "test", "alerts": alerts}}
            )


def _notice(row: Row, base_url: str) -> AlertNotice:
    at = row["fired_at"] if row["notice"] == "firing" else row["resolved_at"] or row["now"]
    kept = {name: str(row[name]) for name in ("id", "rule", "subject", "severity", "text", "runbook")}
    return AlertNotice(event=row["notice"], at=isoformat(at), url=f"{base_url}/alerts/{row['id']}", **kept)


def _links(post: Post, approval: Mapping[str, Any], channel: str, event: str) -> dict[str, str]:
    """Signed ones to each decision, the same in every attempt; where a key is needed to decide, one to the page."""
    is_for_others = approval["assigned_to"] not in (None, recipient_of(channel))
    if post.secret is None or approval["reviewer"] == "admin" or approval["quorum"] > 1 or is_for_others:
        return {"decide": f"{post.base_url}/approvals/{approval['id']}"}
    links = dict[str, str]()
    since = approval["passed_at"] if event == "escalated" else approval["requested_at"]
    last = (parse_isoformat(since) or 0) // 1_000_000 + LINK_SECONDS
    for choice in CHOICES:
        token = sign_link(post.secret, Link(approval["id"], choice, recipient_of(channel), last))
        links[choice] = f"{post.base_url}/approvals/link/{token}"
    return links


def _message(channel: str, approval: Mapping[str, Any], event: str, links: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of the channel's tool."""
    kind, _, target = channel.partition(":")
    text = body(approval, event, links)
    match kind:
        case "email":
            return {"to": target, "subject": subject(approval, event), "body": text}
        case "telegram":
            return {"text": body(approval, event, links, limit=TELEGRAM_LIMIT)}
        case _:
            return {"data": {"text": text, "approval": approval["id"], "event": event, "links": dict(links)}}
