"""The tools that messages about approvals and alerts are sent with, one per channel of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from pilothouse.config import Settings, environment_value
from pilothouse.domain.secrets import SecretRule
from pilothouse.engine.tools import Tool
from pilothouse.errors import ConfigError
from pilothouse.tools.mail import send_email
from pilothouse.tools.messages import telegram, webhook

MAIL_SECRET, BOT_SECRET = "SMTP_PASSWORD", "BOTFATHERTOKEN"
SECURITIES = {"smtp": "starttls", "smtps": "tls", "smtp+plain": "none"}
PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


def notice_tools(settings: Settings) -> dict[str, Tool]:
    """A tool for each channel. Raises ConfigError where a channel lacks what it needs."""
    return {channel: _once_more(_tool(settings, channel)) for channel in settings.every_channel}


def notice_secrets(agent: str) -> Mapping[str, SecretRule]:
    """The secrets of those tools, for that agent alone."""
    return {name: SecretRule(agents=(agent,)) for name in (MAIL_SECRET, BOT_SECRET)}


def _once_more(tool: Tool) -> Tool:
    """After a crash a message may be sent again: told twice is better than not told."""
    return replace(tool, options=replace(tool.options, idempotent=True))


def _tool(settings: Settings, channel: str) -> Tool:
    kind, _, target = channel.partition(":")
    match kind:
        case "email":
            return _mail(settings)
        case "telegram":
            if environment_value(BOT_SECRET) is None:
                name = "approval_channels" if channel in settings.channels else "alert_channels"
                raise ConfigError(f"{name} has {channel!r}, which needs the bot's token in {BOT_SECRET}")
            return telegram(chat_id=target, token_secret=BOT_SECRET, base_url=settings.telegram_url.rstrip("/"))
        case _:
            return webhook(target, is_idempotent=True)


def _mail(settings: Settings) -> Tool:
    parts = urlsplit(settings.smtp_url or "")
    if parts.scheme not in SECURITIES or not parts.hostname:
        raise ConfigError(f"setting smtp_url is {settings.smtp_url!r}; write smtp://USER@HOST:587 or smtps://USER@HOST")
    user = unquote(parts.username) if parts.username else None
    return send_email(
        host=parts.hostname,
        sender=settings.mail_from or "",
        port=parts.port or PORTS[parts.scheme],
        security=SECURITIES[parts.scheme],  # type: ignore[arg-type]  # one of the three
        user=user,
        password_secret=MAIL_SECRET if user else None,
    )
