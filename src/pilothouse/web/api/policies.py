"""Policies: the rules of this process's settings, and what they would say of an action.

Policies in Python belong to the workers' App, which an API process does not import.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pilothouse.clock import to_datetime
from pilothouse.control import policies
from pilothouse.domain.policies import Facts, Proposal
from pilothouse.web import approval_schemas, requests
from pilothouse.web.answers import answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["policies"])


@router.get("/policies", responses=gives(approval_schemas.PolicyList))
async def list_policies(backend: BackendOf) -> Response:
    """Every rule of the settings, and the version of them all."""
    return answer(policies.describe(backend.settings.rulebook()))


@router.post(
    "/policies/explain", openapi_extra=takes(requests.ExplainPolicy), responses=gives(approval_schemas.PolicyVerdict)
)
async def explain_policy(request: Request, backend: BackendOf) -> Response:
    """What would become of an action, and what each rule that applies says.

    Only the rules of the settings speak: policies in Python, and what a tool declares (its effect, amount, risk, …),
    are in the workers' App, which is not known here. Say what the tool declares; `pilothouse policy explain` knows it.
    """
    body = await read_model(request, requests.ExplainPolicy)
    return answer(
        policies.explain(backend.settings.rulebook(), _proposal(body), _facts(body, backend.db.clock.now_us()))
    )


def _proposal(body: requests.ExplainPolicy) -> Proposal:
    return Proposal(
        agent=body.agent,
        action=body.action,
        kind=body.kind,
        effect=body.effect,
        platform=body.platform,
        arguments=body.arguments,
        amount_usd=body.amount_usd,
        billing=body.billing,
        people_affected=body.people_affected,
        risk=body.risk,
        data_class=body.data_class,
        is_reversible=body.reversible,
        tenant=body.tenant,
        called_by=body.called_by,
    )


def _facts(body: requests.ExplainPolicy, now_us: int) -> Facts:
    now = to_datetime(now_us if body.at is None else body.at)
    return Facts(now, body.first_time, body.confidence, body.autonomy)
