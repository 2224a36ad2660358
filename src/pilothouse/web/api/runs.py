"""Runs: submit them one by one or many at once, look at them, cancel, redrive, dismiss and signal them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from pilothouse.clock import isoformat
from pilothouse.control import bulk, cancels, dead, run_lists, runs, signals, timeline
from pilothouse.control.bulk import Choice, Order, bulk_view
from pilothouse.control.run_lists import Filter
from pilothouse.control.runs import Submitted
from pilothouse.control.views import lineage_view, run_view
from pilothouse.control.waterfall import waterfall_of
from pilothouse.domain.runs import RunState
from pilothouse.domain.traces import parse_traceparent
from pilothouse.errors import FieldError, PilothouseError
from pilothouse.web import lineage_schemas, requests, schemas, waterfall_schemas
from pilothouse.web.access import Caller, PrincipalOf, caller_of
from pilothouse.web.answers import Limit, answer
from pilothouse.web.backend import Backend, BackendOf, backend_of
from pilothouse.web.bodies import Instant, parse, read_json, read_model
from pilothouse.web.openapi import gives, takes, takes_key
from pilothouse.web.problems import invalid, problem_of

router = APIRouter(prefix="/api/v1", tags=["runs"])

KEY_HEADER = "idempotency-key"
TRACE_HEADER = "traceparent"
DEFAULT_TENANT = "default"

Version = Annotated[str | None, Query(min_length=1, max_length=64, description="The beginning of a fingerprint.")]
Fragment = Annotated[str | None, Query(min_length=1, max_length=200, description="In the input or the error.")]


@router.post(
    "/runs", status_code=202, openapi_extra=takes_key(requests.Submit), responses=gives(schemas.Submitted, 202)
)
async def submit_run(request: Request) -> Response:
    """Takes a run. The answer comes once the run is stored; it is worked on later."""
    data = _with_key(await read_json(request, empty={}), request.headers.get(KEY_HEADER))
    wanted = request_of(data, caller_of(request), request.headers.get(TRACE_HEADER))
    submitted = await backend_of(request).submitter.submit(wanted)
    told = _told(submitted)
    return answer(told, 202, {"Location": told["url"]})


@router.post("/runs:batch", openapi_extra=takes_key(requests.SubmitMany), responses=gives(schemas.SubmittedMany))
async def submit_runs(request: Request) -> Response:
    """Takes many runs in one transaction; a refused one leaves the others untouched.

    With an Idempotency-Key each run without a key of its own gets that key, a dot and its place in the list.
    """
    batch = await read_model(request, requests.SubmitMany)
    key = request.headers.get(KEY_HEADER)
    caller, trace = caller_of(request), request.headers.get(TRACE_HEADER)
    wanted = [_request_or_error(_with_place_key(data, key, n), caller, trace) for n, data in enumerate(batch.runs)]
    accepted = [each for each in wanted if isinstance(each, runs.Request)]
    answers = iter(await backend_of(request).submitter.submit_batch(accepted) if accepted else [])
    outcomes = [next(answers) if isinstance(each, runs.Request) else each for each in wanted]
    return answer({"runs": [_outcome(outcome, request.url.path, n) for n, outcome in enumerate(outcomes)]})


@router.get("/runs", responses=gives(schemas.RunPage))
async def list_runs(
    backend: BackendOf,
    *,
    state: RunState | None = None,
    agent: str | None = None,
    lane: str | None = None,
    tenant: str | None = None,
    parent: str | None = None,
    version: Version = None,
    text: Fragment = None,
    created_after: Instant | None = None,
    created_before: Instant | None = None,
    after: str | None = None,
    limit: Limit = 50,
) -> Response:
    """The newest runs first. A page that has looked at many runs without filling up says how far back it has looked."""
    wanted = Filter(state, agent, lane, tenant, parent, created_after, created_before, version, text)
    found = await run_lists.list_runs(backend.db, wanted, after=after, limit=limit)
    reached = found.searched_back_to
    return answer(
        {
            "items": [run_view(row) for row in found.rows],
            "next": found.next,
            "searched_back_to": None if reached is None else isoformat(reached),
        }
    )


@router.get("/runs/{id}", responses=gives(schemas.Run))
async def get_run(id: str, backend: BackendOf) -> Response:
    return answer(run_view(await runs.get_run(backend.db, id)))


@router.get("/runs/{id}/timeline", responses=gives(schemas.Timeline))
async def get_timeline(id: str, backend: BackendOf) -> Response:
    """Everything that happened to the run: attempts, steps, signals, logs, children, audit."""
    return answer(await timeline.timeline(backend.db, id))


@router.get("/runs/{id}/waterfall", responses=gives(waterfall_schemas.Waterfall))
async def get_waterfall(id: str, backend: BackendOf) -> Response:
    """The run as spans on a line of time, where its time went and what it cost."""
    return answer(await waterfall_of(backend.db, id))


@router.get("/runs/{id}/why", responses=gives(schemas.Why))
async def explain_run(id: str, backend: BackendOf) -> Response:
    """Why the run is where it is, and what to do about it."""
    return answer(await timeline.why(backend.db, id))


@router.post(
    "/runs/{id}/cancel",
    openapi_extra=takes(requests.Cancel, required=False),
    responses=gives(lineage_schemas.Cancelled),
)
async def cancel_run(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Cancels the run and everything it started; one that runs shows `cancelling` until its worker has stopped it.

    With `lineage` its root and all that came of it; with `dry_run` it only says what that would be.
    """
    body = await read_model(request, requests.Cancel)
    if body.lineage:
        found = await cancels.cancel_whole_lineage(
            backend.db, id, principal=principal, reason=body.reason, dry_run=body.dry_run
        )
        return answer(lineage_view(found, dry_run=body.dry_run))
    if body.dry_run:
        return answer(lineage_view(await cancels.plan_cancel(backend.db, id), dry_run=True))
    row = await cancels.cancel_run(backend.db, id, principal=principal, reason=body.reason)
    return answer(run_view(row))


@router.post("/runs:cancel", openapi_extra=takes(requests.CancelMany), responses=gives(schemas.Bulk))
async def cancel_many(request: Request, backend: BackendOf) -> Response:
    """Cancels the open runs of a filter, at most 500 at once, the newest first; a refused one leaves the others."""
    body = await read_model(request, requests.CancelMany)
    caller = caller_of(request)
    order = Order("cancel", caller.principal, caller.tenant, body.reason)
    return await _bulk(backend, order, body, caller)


@router.post("/runs:redrive", openapi_extra=takes(requests.RedriveMany), responses=gives(schemas.Bulk))
async def redrive_many(request: Request, backend: BackendOf) -> Response:
    """Queues the dead letters of a filter again, at most 500 at once, the newest first."""
    body = await read_model(request, requests.RedriveMany)
    caller = caller_of(request)
    order = Order("redrive", caller.principal, caller.tenant, body.reason, body.start_from)
    return await _bulk(backend, order, body, caller)


async def _bulk(backend: Backend, order: Order, body: requests.RunChoice, caller: Caller) -> Response:
    wanted = Filter(
        body.state,
        body.agent,
        body.lane,
        caller.own_tenant(body.tenant),
        created_after=body.created_after,
        created_before=body.created_before,
        version=body.version,
        text=body.text,
    )
    choice = Choice(wanted, None if body.ids is None else tuple(body.ids), body.error_type)
    chosen = await bulk.choose(backend.db, order.verb, choice)
    if body.dry_run:
        return answer(bulk_view(chosen, None))
    return answer(bulk_view(chosen, await bulk.carry_out(backend.db, order, [row["id"] for row in chosen.rows])))


@router.post("/runs/{id}/redrive", openapi_extra=takes(requests.Redrive, required=False), responses=gives(schemas.Run))
async def redrive_run(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Queues a failed run again with fresh attempts."""
    body = await read_model(request, requests.Redrive)
    row = await dead.redrive_run(
        backend.db, id, principal=principal, start_from=body.start_from, step=body.step, reason=body.reason
    )
    return answer(run_view(row))


@router.post("/runs/{id}/dismiss", openapi_extra=takes(requests.Dismiss, required=False), responses=gives(schemas.Run))
async def dismiss_run(id: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Takes a failed run off the dead letters; it stays in the run log."""
    body = await read_model(request, requests.Dismiss)
    row = await dead.dismiss_run(backend.db, id, principal=principal, reason=body.reason)
    return answer(run_view(row))


_PAYLOAD = {"requestBody": {"required": False, "content": {"application/json": {"schema": {}}}}}


@router.post("/runs/{id}/signals/{name}", openapi_extra=_PAYLOAD, responses=gives(schemas.SignalSent))
async def send_signal(id: str, name: str, request: Request, backend: BackendOf, principal: PrincipalOf) -> Response:
    """Sends a signal whose payload is the body, null where there is none. The first of a name wins."""
    payload = await read_json(request, empty=None)
    is_first = await signals.send_signal(backend.db, id, name, payload, principal=principal)
    return answer({"first": is_first})


def request_of(data: object, caller: Caller, trace: str | None) -> runs.Request:
    """The run that a body asks for, on the caller's behalf. Raises InvalidInput, and NotFound for a foreign tenant."""
    body = parse(data, requests.Submit)
    return runs.Request(
        agent=body.agent,
        input=body.input,
        principal=caller.principal,
        lane=body.lane,
        priority=body.priority,
        available_at=body.at,
        idempotency_key=body.idempotency_key,
        tenant=caller.own_tenant(body.tenant) or DEFAULT_TENANT,
        webhook_url=body.webhook_url,
        concurrency_key=body.concurrency_key,
        user_id=body.user,
        traceparent=trace if parse_traceparent(trace) else None,
    )


def _request_or_error(data: object, caller: Caller, trace: str | None) -> runs.Request | PilothouseError:
    try:
        return request_of(data, caller, trace)
    except PilothouseError as error:
        return error


def _with_key(data: Any, key: str | None) -> Any:
    """The body with the key of the header, which may say the same as the body, but nothing else."""
    if key is None or not isinstance(data, dict):
        return data
    if data.get("idempotency_key") not in (None, key):
        raise invalid([FieldError("idempotency_key", f"differs from the header Idempotency-Key {key!r}; give one")])
    return data | {"idempotency_key": key}


def _with_place_key(data: Any, key: str | None, place: int) -> Any:
    if key is None or not isinstance(data, dict) or data.get("idempotency_key") is not None:
        return data
    return data | {"idempotency_key": f"{key}.{place}"}


def _told(submitted: Submitted) -> dict[str, Any]:
    return {
        "id": submitted.id,
        "state": submitted.state,
        "url": f"/api/v1/runs/{submitted.id}",
        "created": submitted.is_new,
    }


def _outcome(outcome: Submitted | PilothouseError, path: str, place: int) -> dict[str, Any]:
    if isinstance(outcome, Submitted):
        return {"status": 202, **_told(outcome)}
    problem = problem_of(outcome)
    assert problem is not None, f"only refusals are answered one by one, not {outcome!r}"
    return problem.body(f"{path}#/runs/{place}")
