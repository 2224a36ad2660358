"""Alerts: what fires, who looks after it, what is silenced, and what each rule measures now. They are the platform's:
keys of one tenant see none of them.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response

from pilothouse.control import alert_notices, alerts
from pilothouse.control.alerts import AlertFilter, SilenceOrder
from pilothouse.domain.alerts import Matcher, Severity
from pilothouse.domain.notices import pick_channel
from pilothouse.web import alert_schemas, requests
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import Limit, answer, page
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["alerts"])


@router.get("/alerts", responses=gives(alert_schemas.AlertPage))
async def list_alerts(
    backend: BackendOf,
    *,
    state: Literal["pending", "firing", "resolved"] | None = None,
    severity: Severity | None = None,
    rule: str | None = None,
    agent: str | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest episodes first."""
    wanted = AlertFilter(state, severity, rule, agent)
    rows = await alerts.list_alerts(backend.db, wanted, after=after, limit=limit + 1)
    return page([alerts.public(row) for row in rows], limit=limit, key="id")


@router.post("/alerts/test", openapi_extra=takes(requests.SendTest), responses=gives(alert_schemas.SentTest))
async def send_test_message(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Sends a real test message to a channel of the settings."""
    body = await read_model(request, requests.SendTest)
    channel = pick_channel(backend.settings.every_channel, body.channel)
    return answer({"run_id": await alert_notices.send_test(backend.db, channel, principal=principal)})


@router.get("/alerts/{id}", responses=gives(alert_schemas.AlertDetail))
async def get_alert(id: str, backend: BackendOf) -> Response:
    """One episode, who was told of it, and its audit."""
    return answer(await alerts.show_alert(backend.db, id))


@router.post(
    "/alerts/{id}/acknowledge",
    openapi_extra=takes(requests.Acknowledge, required=False),
    responses=gives(alert_schemas.AlertDetail),
)
async def acknowledge_alert(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Says that somebody looks after it."""
    body = await read_model(request, requests.Acknowledge)
    return answer(await alerts.acknowledge(backend.db, id, principal=principal, reason=body.reason))


@router.get("/alert-rules", responses=gives(alert_schemas.AlertRuleList))
async def list_alert_rules(backend: BackendOf) -> Response:
    """Every rule with its threshold, and what it measures now."""
    settings = backend.settings
    items = await alerts.standings(backend.db, settings.alert_rules, settings.calendar)
    return answer({"items": items, "next": None})


@router.post(
    "/alert-rules/{rule}/accept", openapi_extra=takes(requests.AcceptDrift), responses=gives(alert_schemas.Accepted)
)
async def accept_drift(rule: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """What an agent does now is usual from now on: its baseline for this rule is learned anew."""
    body = await read_model(request, requests.AcceptDrift)
    await alerts.accept(backend.db, rule, body.agent, principal=principal)
    return answer({"rule": rule, "agent": body.agent})


@router.get("/silences", responses=gives(alert_schemas.SilenceList))
async def list_silences(backend: BackendOf) -> Response:
    """The silences that hold now; the one that ends first comes first."""
    rows = await alerts.list_silences(backend.db)
    return answer({"items": [alerts.public(row) for row in rows], "next": None})


@router.post(
    "/silences", status_code=201, openapi_extra=takes(requests.NewSilence), responses=gives(alert_schemas.Silence, 201)
)
async def create_silence(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Keeps the messages of matching alerts back for some minutes."""
    body = await read_model(request, requests.NewSilence)
    order = SilenceOrder(Matcher(body.rule, body.subject, body.agent), body.minutes, body.reason)
    row = await alerts.silence(backend.db, order, principal=principal)
    return answer(alerts.public(row), 201)


@router.delete("/silences/{id}", responses=gives(alert_schemas.Silence))
async def end_silence(id: str, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Ends a silence before its time."""
    return answer(alerts.public(await alerts.unsilence(backend.db, id, principal=principal)))
