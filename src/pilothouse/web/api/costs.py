"""Costs: what was spent by agent, model, day and so on; and reservations that wait for somebody to settle them."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from pilothouse.control import costs, reservations
from pilothouse.control.costs import Span
from pilothouse.control.reservations import Outcome
from pilothouse.control.views import view
from pilothouse.domain.exports import read_export
from pilothouse.errors import FieldError, InvalidInput
from pilothouse.web import requests
from pilothouse.web import spending_schemas as schemas
from pilothouse.web.access import PrincipalOf
from pilothouse.web.answers import Limit, answer
from pilothouse.web.backend import BackendOf
from pilothouse.web.bodies import read_model
from pilothouse.web.openapi import gives, takes

router = APIRouter(prefix="/api/v1", tags=["costs"])

By = Literal["agent", "version", "model", "tenant", "day", "user", "tool", "platform"]
First = Annotated[date | None, Query(alias="from", description="The first day; this month's unless given.")]
Last = Annotated[date | None, Query(alias="to", description="The last day; today unless given.")]


@router.get("/costs", responses=gives(schemas.CostReport))
async def report_costs(
    backend: BackendOf, *, by: By = "agent", first: First = None, last: Last = None, tenant: str | None = None
) -> Response:
    """What was spent, the dearest first; with the runs that it was for, and what a successful one has cost."""
    span = None if first is None and last is None else Span(str(first or date.min), str(last or date.max))
    span, lines = await costs.report(backend.db, by, backend.settings.calendar, span=span, tenant=tenant)
    items = [costs.public(line, lines, by) for line in lines]
    return answer({"by": by, "from": span.first, "to": span.last, "items": items, "next": None})


@router.post("/costs/reconcile", openapi_extra=takes(requests.Reconcile), responses=gives(schemas.Reconciled))
async def reconcile_costs(request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """The ledger beside a provider's export, by day and model; with `book` the differences are booked."""
    body = await read_model(request, requests.Reconcile)
    try:
        export = read_export(body.csv, body.columns)
    except ValueError as error:
        raise InvalidInput(str(error), [FieldError("csv", str(error))]) from error
    whose = body.provider or export.provider
    rows = await costs.reconcile(backend.db, export.figures, whose)
    told = {"provider": whose, "columns": export.columns, "items": [costs.compared_view(row) for row in rows]}
    if not body.book:
        return answer(told | {"booked": None})
    booked, left = await costs.book(backend.db, rows, backend.settings.calendar, principal=principal)
    return answer(told | {"booked": costs.booked_view(booked, left)})


@router.get("/reservations", responses=gives(schemas.ReservationList))
async def list_reservations(
    backend: BackendOf, *, tenant: str | None = None, run: str | None = None, limit: Limit = 50
) -> Response:
    """Those that are still held though their attempt has ended, the oldest first. They count as spent."""
    rows = await reservations.list_unsettled(backend.db, tenant=tenant, run_id=run, limit=limit)
    return answer({"items": [view(row) for row in rows], "next": None})


@router.post(
    "/reservations/{id}/settle", openapi_extra=takes(requests.SettleReservation), responses=gives(schemas.Reservation)
)
async def settle_reservation(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Says what a call has cost whose attempt could not."""
    body = await read_model(request, requests.SettleReservation)
    outcome = Outcome(body.microusd, body.tokens, body.actions)
    calendar = backend.settings.calendar
    row = await reservations.settle_reservation(
        backend.db, id, outcome, calendar, principal=principal, reason=body.reason
    )
    return answer(view(row))
