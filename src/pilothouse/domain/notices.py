"""Notices: where people are told of approvals and alerts, what they are told, and the signed links to a decision.

A link is good for one approval, one decision and one recipient until it expires. It opens a page that asks again; only
that page's button decides, so a mail program that looks at every link decides nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pilothouse.domain.approvals import Choice
from pilothouse.errors import FieldError, InvalidInput

KINDS = ("email", "telegram", "webhook")
LINK_SECONDS = 7 * 86_400
"""How long a link is good; the approval may be over before."""

CHOICES: tuple[Choice, ...] = ("approve", "reject", "revise")


def parse_channels(text: str, *, setting: str = "approval_channels") -> tuple[str, ...]:
    """Reads `email:ops@example.com, telegram:42, webhook:https://…`. Raises ValueError."""
    channels = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for channel in channels:
        kind, _, target = channel.partition(":")
        is_address = kind != "email" or "@" in target
        is_url = kind != "webhook" or target.startswith(("http://", "https://"))
        if kind not in KINDS or not target or not is_address or not is_url:
            raise ValueError(f"{setting} has {channel!r}; write email:ADDRESS, telegram:CHAT or webhook:https://…")
    return channels


def pick_channel(channels: Sequence[str], wanted: str) -> str:
    """The channel of the settings that is meant: by its whole name, or by its kind where there is one of it.

    Raises InvalidInput with those that there are.
    """
    found = [each for each in channels if wanted in (each, recipient_of(each))]
    found = found or [each for each in channels if each.partition(":")[0] == wanted]
    if len(found) == 1:
        return found[0]
    known = ", ".join(recipient_of(each) for each in channels)
    told = f"is one of {known}" if channels else "needs the setting alert_channels or approval_channels first"
    raise InvalidInput(
        f"channel {wanted!r} is {'not clear' if found else 'unknown'}; it {told}", [FieldError("channel", told)]
    )


@dataclass(frozen=True, slots=True)
class Link:
    """What a signed link stands for. `expires_at` in seconds; `recipient` is the principal that it was sent to."""

    approval_id: str
    choice: Choice
    recipient: str
    expires_at: int


def sign_link(secret: str, link: Link) -> str:
    """The token of a link."""
    told = [link.approval_id, link.choice, link.recipient, link.expires_at]
    body = _encode(json.dumps(told, separators=(",", ":")).encode())
    return f"{body}.{_signature(secret, body)}"


def read_link(secret: str, token: str, *, now: int) -> Link | None:
    """The link of a token; None where it was tampered with or has expired. `now` in seconds."""
    body, _, signature = token.partition(".")
    if not hmac.compare_digest(_signature(secret, body).encode(), signature.encode()):
        return None
    approval_id, choice, recipient, expires_at = json.loads(_decode(body))
    link = Link(str(approval_id), cast(Choice, choice), str(recipient), int(expires_at))
    return link if now < link.expires_at and choice in CHOICES else None


def _signature(secret: str, body: str) -> str:
    return _encode(hmac.new(secret.encode(), b"pilothouse-approval-link:" + body.encode(), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def recipient_of(channel: str) -> str:
    """Who acts through a link that was sent there. A webhook's address may hold a key, so only its hash is told."""
    kind, _, target = channel.partition(":")
    if kind != "webhook":
        return channel
    return f"webhook:{hashlib.sha256(target.encode()).hexdigest()[:12]}"


def subject(approval: Mapping[str, Any], event: str) -> str:
    """One line."""
    what = " ".join(str(approval["title"]).split())[:150]
    match event:
        case "escalated":
            return f"Still waiting: {what}"
        case "delegated":
            return f"For {approval['assigned_to']} to decide: {what}"
        case _:
            return f"Approval wanted: {what}"


def body(approval: Mapping[str, Any], event: str, links: Mapping[str, str], *, limit: int | None = None) -> str:
    """Plain text: what is asked, why, and where to decide; of a text that is too long, the links are never cut."""
    lines = [subject(approval, event), "", *_facts(approval), ""]
    for name in ("recommendation", "reasoning"):
        if approval[name]:
            lines += [f"{name.capitalize()}: {approval[name]}", ""]
    if approval["alternatives"]:
        lines += ["Alternatives:", *(f"- {each}" for each in approval["alternatives"]), ""]
    lines += ["Arguments:", json.dumps(approval["arguments"], indent=2, ensure_ascii=False), ""]
    if approval["deadline_at"]:
        lines += [_deadline(approval, event), ""]
    told, leads = "\n".join(lines), "\n".join(f"{name.capitalize()}: {url}" for name, url in links.items())
    if limit is not None and len(told) + len(leads) + 1 > limit:
        told = told[: max(0, limit - len(leads) - 3)] + "…\n"
    return f"{told}\n{leads}"


def _facts(approval: Mapping[str, Any]) -> list[str]:
    lines = [f"Agent {approval['agent']}, {approval['action']}, run {approval['run_id']}."]
    if approval["cost_usd"]:
        billing = {"none": "", "one_time": ", once", "recurring": ", again and again"}[approval["billing"]]
        lines.append(f"Cost: {approval['cost_usd']:,.2f} USD{billing}.")
    lines.append(f"Risk: {approval['risk_assessment']}")
    if approval["confidence"] is not None:
        lines.append(f"Confidence: {approval['confidence']:.2f}, as the agent states it.")
    if approval["quorum"] > 1:
        lines.append(f"Needs: {approval['quorum']} different people, each with a key of their own.")
    elif approval["reviewer"] == "admin":
        lines.append("Needs: a senior reviewer, who has an admin's key.")
    return lines


def _deadline(approval: Mapping[str, Any], event: str) -> str:
    at = f"{approval['deadline_at'][:16].replace('T', ' ')} UTC"
    if event == "escalated":
        return f"Nobody decided before its deadline, {at}."
    then = {"wait": "it still waits", "escalate": "senior reviewers are asked", "expire": "it expires"}
    return f"Deadline: {at}; after that {then[approval['on_deadline']]}."


# --- alerts ------------------------------------------------------------------------------------

MOST_TOLD = 30
"""A digest names so many alerts, and says how many more there are."""


@dataclass(frozen=True, slots=True)
class AlertNotice:
    """One thing to tell of an alert: that it fires or is over. `at` says when (ISO 8601), `url` is its page."""

    event: str
    id: str
    rule: str
    subject: str
    severity: str
    text: str
    runbook: str
    at: str
    url: str


def alerts_subject(notices: Sequence[AlertNotice]) -> str:
    """One line: of one alert, or how many of a digest fire and are over."""
    if not notices:
        return "Test message of Pilothouse: alerts arrive here"
    if len(notices) == 1:
        return _alert_line(notices[0])[:200]
    firing = sum(1 for each in notices if each.event == "firing")
    return f"{len(notices)} notices of alerts: {firing} firing, {len(notices) - firing} resolved"


def _alert_line(notice: AlertNotice) -> str:
    mark = notice.severity.upper() if notice.event == "firing" else "RESOLVED"
    return f"{mark} {notice.rule} of {notice.subject}"


def alerts_body(notices: Sequence[AlertNotice], base_url: str, *, limit: int | None = None) -> str:
    """Plain text: what fires, since when, the figures, and what to do next."""
    if not notices:
        told = f"This is a test of the channel, sent by `pilothouse alerts test`.\n\nServer: {base_url}"
        return told if limit is None else told[:limit]
    parts = [_alert_part(each) for each in notices[:MOST_TOLD]]
    if len(notices) > MOST_TOLD:
        parts.append(f"… and {len(notices) - MOST_TOLD} more: `pilothouse alerts list`")
    ending = f"\n\nAll alerts: {base_url}/alerts"
    text = "\n\n".join(parts)
    if limit is not None and len(text) + len(ending) > limit:
        text = text[: max(0, limit - len(ending) - 1)] + "…"
    return text + ending


def _alert_part(notice: AlertNotice) -> str:
    verb = "Firing since" if notice.event == "firing" else "Resolved at"
    text = notice.text if notice.event == "firing" else f"It was: {notice.text}"
    lines = [_alert_line(notice), text, f"{verb} {notice.at}."]
    if notice.event == "firing":
        lines.append(f"What to do: `pilothouse runbook show {notice.runbook}`")
    lines.append(notice.url)
    return "\n".join(lines)
