"""`send_email`: mail by SMTP."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from email.message import EmailMessage
from typing import Annotated, Literal

from pilothouse.domain.effects import Effect
from pilothouse.engine.tools import Secret, Tool, ToolOptions, make_tool
from pilothouse.errors import ConfigError, MayHaveHappened, RetryLater, RunError, ToolError

SMTP_SECONDS = 30.0
LATER_SECONDS = 60.0
TEMPORARY, PERMANENT = 400, 500


def send_email(
    *,
    host: str,
    sender: str,
    port: int = 587,
    security: Literal["starttls", "tls", "none"] = "starttls",
    user: str | None = None,
    password_secret: str | None = None,
    name: str = "send_email",
) -> Tool:
    """A tool that sends plain-text mail from `sender` through an SMTP server.

    `password_secret` names the secret that holds the password of `user`. A message bears its effect key as Message-ID,
    so that a mail server which knows it does not deliver it twice. Raises ConfigError where user and secret do not go
    together.
    """
    if (user is None) != (password_secret is None):
        raise ConfigError(f"tool {name!r}: user and password_secret belong together")
    domain = sender.rpartition("@")[2]

    def deliver(to: str, subject: str, body: str, effect_key: str, password: str | None) -> str:
        message = EmailMessage()
        try:
            message["From"], message["To"], message["Subject"] = sender, to, subject
        except ValueError as error:
            raise ToolError(f"the mail's header does not fit: {error}") from error
        message["Message-ID"] = f"<{effect_key}@{domain}>"
        message.set_content(body)
        try:
            server = _connect(host, port, security)
            _prepare(server, security, user, password)
        except (smtplib.SMTPException, OSError) as error:
            raise _refusal(host, error) from error
        _send(host, server, message)
        return str(message["Message-ID"])

    options = ToolOptions(effect=Effect.IRREVERSIBLE, platform="email", timeout_seconds=2 * SMTP_SECONDS)
    if password_secret is None:

        def send(to: str, subject: str, body: str, effect_key: str) -> str:
            """Sends a mail and returns its Message-ID."""
            return deliver(to, subject, body, effect_key, None)

        return make_tool(send, name, options)
    secret = Annotated[str, Secret(password_secret)]

    def send_as_user(to: str, subject: str, body: str, effect_key: str, password: str) -> str:
        """Sends a mail and returns its Message-ID."""
        return deliver(to, subject, body, effect_key, password)

    send_as_user.__annotations__["password"] = secret
    return make_tool(send_as_user, name, options)


def _send(host: str, server: smtplib.SMTP, message: EmailMessage) -> None:
    """Raises MayHaveHappened where the server went away before it could say whether it took the mail."""
    try:
        server.send_message(message)
    except (smtplib.SMTPServerDisconnected, OSError) as error:
        if isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected):
            raise _refusal(host, error) from error
        raise MayHaveHappened(f"{host} went away before it took the mail: {type(error).__name__}: {error}") from error
    finally:
        with suppress(smtplib.SMTPException, OSError):
            server.quit()


def _refusal(host: str, error: Exception) -> RunError:
    """What a mail server said: to come back later (its codes from 400 to 499), or no."""
    told = f"{host} did not take the mail: {type(error).__name__}: {error}"
    codes = [code for code, _ in error.recipients.values()] if isinstance(error, smtplib.SMTPRecipientsRefused) else []
    if isinstance(error, smtplib.SMTPResponseException):
        codes = [error.smtp_code]
    is_later = bool(codes) and all(TEMPORARY <= code < PERMANENT for code in codes)
    return RetryLater(LATER_SECONDS, told) if is_later else ToolError(told)


def _connect(host: str, port: int, security: str) -> smtplib.SMTP:
    if security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=SMTP_SECONDS, context=ssl.create_default_context())
    return smtplib.SMTP(host, port, timeout=SMTP_SECONDS)


def _prepare(server: smtplib.SMTP, security: str, user: str | None, password: str | None) -> None:
    try:
        if security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if user is not None and password is not None:
            server.login(user, password)
    except BaseException:
        server.close()
        raise
