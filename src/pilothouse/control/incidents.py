"""Incidents: a bad action with its siblings, what was done to correct them, and the case that its run is frozen as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilothouse import payloads
from pilothouse.clock import new_id
from pilothouse.control import audit, blobs, effects, runs
from pilothouse.control.runs import Request
from pilothouse.control.views import view
from pilothouse.domain.incidents import HOUR_US, Answer, Deed, Severity, kinship, regression_case
from pilothouse.errors import Conflict, FieldError, InvalidInput, NotFound, Refused
from pilothouse.store.database import Database, Row, Transaction

HOURS = 24
MAX_HOURS = 24 * 365
CANDIDATES = 1000
"""The most siblings that an incident holds: the nearest ones."""

ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody reports: a bad effect, how bad it is, why it is, and how far around it siblings are looked for."""

    effect_id: str
    reason: str
    severity: Severity = Severity.CRITICAL
    hours: int = HOURS


async def open_incident(db: Database, report: Report, *, principal: str, tenant: str | None = None) -> dict[str, Any]:
    """Finds the siblings of a bad effect, freezes its run as a case and keeps all of it; the incident.

    Raises NotFound, InvalidInput, and Conflict where one is open for this effect.
    """
    _expect_text("reason", report.reason)
    if not 0 <= report.hours <= MAX_HOURS:
        told = f"must be between 0 and {MAX_HOURS}"
        raise InvalidInput(f"hours is {report.hours}; it {told}", [FieldError("hours", told)])
    incident_id = await db.transaction(lambda tx: _open(tx, report, principal, tenant))
    return await show_incident(db, incident_id, tenant=tenant)


def _open(tx: Transaction, report: Report, principal: str, tenant: str | None) -> str:
    bad = effects.find(tx, report.effect_id, tenant)
    effect = tx.fetch_one("deed_by_id", id=report.effect_id)
    assert effect is not None
    effect = effect | {"state": effects.shown_state(bad)}
    own = {name: effect[name] for name in ("run_id", "tenant", "agent", "tool", "fingerprint")}
    opened = tx.fetch_one(
        "insert_incident",
        id=new_id(),
        effect_id=effect["id"],
        severity=report.severity,
        reason=report.reason,
        hours=report.hours,
        opened_by=principal,
        **own,
    )
    if opened is None:
        known = tx.fetch_one("open_incident_of_effect", effect_id=effect["id"])
        raise Conflict(f"incident {known['id'] if known else '?'} is open for effect {effect['id']} already")
    incident_id = str(opened["id"])
    _write_effects(tx, incident_id, effect, report.hours, tenant)
    _freeze(tx, incident_id, effect, report, principal)
    # What counts against an agent's autonomy is found by this action.
    action = "incident.opened" if report.severity == Severity.CRITICAL else "incident.noted"
    _record(tx, action, incident_id, effect, principal, f"effect {effect['id']} of {effect['tool']}: {report.reason}")
    return incident_id


def _write_effects(tx: Transaction, incident_id: str, effect: Row, hours: int, tenant: str | None) -> None:
    found = tx.fetch_all(
        "deeds_like",
        id=effect["id"],
        tool=effect["tool"],
        agent=effect["agent"],
        arguments_hash=effect["arguments_hash"],
        root_id=effect["root_id"],
        earliest=effect["intended_at"] - hours * HOUR_US,
        latest=effect["intended_at"] + hours * HOUR_US,
        tenant=tenant,
        limit=CANDIDATES,
    )
    rows = [_effect_row(incident_id, effect, ORIGINAL, effect["state"])]
    for each in found:
        alike = kinship(_deed(effect), _deed(each), hours=hours)
        if alike:
            rows.append(_effect_row(incident_id, each, ", ".join(alike), effects.shown_state(each)))
    tx.send_many("insert_incident_effects", rows)


def _deed(row: Row) -> Deed:
    return Deed(
        row["agent"], row["tool"], row["fingerprint"], row["arguments_hash"], row["root_id"], row["intended_at"]
    )


def _effect_row(incident_id: str, effect: Row, alike: str, state: str) -> Row:
    kept = {name: effect[name] for name in ("run_id", "tenant", "tool", "arguments", "intended_at")}
    return kept | {"incident_id": incident_id, "effect_id": effect["id"], "kinship": alike, "state": state}


def _freeze(tx: Transaction, incident_id: str, effect: Row, report: Report, principal: str) -> None:
    """Keeps the run up to the effect as a case."""
    run = runs.run_in(tx, effect["run_id"])
    own = effect["key"]
    steps = [
        row
        for row in blobs.unpack(tx, tx.fetch_all("checkpoints_of_run", run_id=run["id"]), "result")
        if row["finished_at"] <= effect["intended_at"] and row["key"] != own and not row["key"].startswith(f"{own}.")
    ]
    case = regression_case(
        agent=effect["agent"],
        input=payloads.decode(run["input"]),
        answers=[_answer(row) for row in steps],
        tool=effect["tool"],
        arguments=None if effect["arguments"] is None else payloads.decode(effect["arguments"]),
        source={
            "incident": incident_id,
            "effect": effect["id"],
            "run": run["id"],
            "fingerprint": effect["fingerprint"],
            "reason": report.reason,
        },
    )
    tx.execute(
        "insert_case",
        id=new_id(),
        incident_id=incident_id,
        tenant=effect["tenant"],
        agent=effect["agent"],
        content=payloads.encode(case),
        created_by=principal,
    )


def _answer(row: Row) -> Answer:
    result = None if row["result"] is None else payloads.decode(row["result"])
    error = None if row["error"] is None else payloads.decode(row["error"])
    return Answer(row["key"], row["kind"], row["state"], result, error)


# --- looking at them ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Which incidents; None: any."""

    state: str | None = None
    severity: str | None = None
    agent: str | None = None
    tenant: str | None = None


async def list_incidents(
    db: Database, wanted: IncidentFilter, *, after: str | None = None, limit: int = 50
) -> list[Row]:
    """Newest first; `after` is the last id of the page before."""
    return await db.read(
        lambda tx: tx.fetch_all(
            "list_incidents",
            after=after,
            limit=limit,
            state=wanted.state,
            severity=wanted.severity,
            agent=wanted.agent,
            tenant=wanted.tenant,
        )
    )


async def show_incident(db: Database, incident_id: str, *, tenant: str | None = None) -> dict[str, Any]:
    """One incident with its effects and what was done about them. Raises NotFound."""
    return await db.read(lambda tx: _show(tx, incident_id, tenant))


def _show(tx: Transaction, incident_id: str, tenant: str | None) -> dict[str, Any]:
    incident = _find(tx, incident_id, tenant)
    rows = tx.fetch_all("effects_of_incident", incident_id=incident_id, tenant=tenant)
    corrections = tx.fetch_all("corrections_of_incident", incident_id=incident_id, tenant=tenant)
    return view(incident) | {
        "effects": [_without_incident(view(row)) for row in rows],
        "corrections": [_without_incident(view(row)) for row in corrections],
    }


def _without_incident(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "incident_id"}


def _find(tx: Transaction, incident_id: str, tenant: str | None) -> Row:
    row = tx.fetch_one("incident_by_id", id=incident_id)
    if row is None or (tenant is not None and row["tenant"] != tenant):
        raise NotFound(f"there is no incident {incident_id}; `pilothouse incident list` shows the latest")
    return row


async def case_of(db: Database, incident_id: str, *, tenant: str | None = None) -> dict[str, Any]:
    """The run of an incident, up to its bad action, as a case for evaluations. Raises NotFound."""

    def work(tx: Transaction) -> Any:
        _find(tx, incident_id, tenant)
        row = tx.fetch_one("case_of_incident", incident_id=incident_id)
        assert row is not None
        return payloads.decode(row["content"])

    case: dict[str, Any] = await db.read(work)
    return case


def critical_open(tx: Transaction, agent: str, since: int) -> int:
    """How many critical incidents of an agent are open still, or were opened since an instant."""
    row = tx.fetch_one("critical_open", agent=agent, since=since)
    assert row is not None
    return int(row["found"])


# --- what is done about them -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Correction:
    """What was done about an effect of an incident: by hand, as `note` says, or by a run that is submitted for it."""

    effect_id: str
    note: str
    run: Request | None = None


async def correct(
    db: Database, incident_id: str, correction: Correction, *, principal: str, tenant: str | None = None
) -> dict[str, Any]:
    """Records a correction, linked to the audit record of the effect that it corrects; the incident.

    One by hand is an effect of its own; one by a run makes its own effects. Raises NotFound, InvalidInput, Conflict
    where the incident is closed or the effect is none of it, and what a submit raises.
    """
    _expect_text("note", correction.note)
    await db.transaction(lambda tx: _correct(tx, incident_id, correction, principal, tenant))
    db.notify(runs.WAKE_RUNS)
    return await show_incident(db, incident_id, tenant=tenant)


def _correct(tx: Transaction, incident_id: str, correction: Correction, principal: str, tenant: str | None) -> None:
    incident = _expect_open(tx, incident_id, tenant)
    known = tx.fetch_all("effects_of_incident", incident_id=incident_id, tenant=tenant)
    effect = next((row for row in known if row["effect_id"] == correction.effect_id), None)
    if effect is None:
        raise Conflict(
            f"effect {correction.effect_id} is none of incident {incident_id}; `pilothouse incident show {incident_id}`"
        )
    by_run, id = _submit(tx, correction.run), new_id()
    if by_run is None:
        tx.execute(
            "insert_correction_effect", id=id, effect_id=effect["effect_id"], principal=principal, note=correction.note
        )
    tx.fetch_one(
        "insert_correction",
        id=id,
        incident_id=incident_id,
        effect_id=effect["effect_id"],
        note=correction.note,
        by_run=by_run,
        corrected_by=principal,
    )
    link = "" if effect["audit_seq"] is None else f"corrects audit record {effect['audit_seq']}: "
    entry = audit.entry(
        "effect.corrected",
        "effect",
        effect["effect_id"],
        principal=principal,
        tenant=effect["tenant"],
        reason=f"{link}{correction.note} (incident {incident['id']})",
        run_id=by_run or effect["run_id"],
    )
    audit.record(tx, [entry])


def _submit(tx: Transaction, request: Request | None) -> str | None:
    if request is None:
        return None
    (answer,) = runs.submit_runs(tx, [request])
    if isinstance(answer, Refused):
        raise answer
    return answer.id


async def close_incident(
    db: Database, incident_id: str, note: str, *, principal: str, tenant: str | None = None
) -> dict[str, Any]:
    """Raises NotFound, InvalidInput without a note, Conflict where it is closed already."""
    _expect_text("note", note)

    def work(tx: Transaction) -> None:
        incident = _expect_open(tx, incident_id, tenant)
        if tx.fetch_one("close_incident", id=incident_id, note=note, closed_by=principal) is None:
            raise Conflict(f"incident {incident_id} is closed already")
        _record(tx, "incident.closed", incident_id, incident, principal, note)

    await db.transaction(work)
    return await show_incident(db, incident_id, tenant=tenant)


def _expect_open(tx: Transaction, incident_id: str, tenant: str | None) -> Row:
    incident = _find(tx, incident_id, tenant)
    if incident["state"] != "open":
        raise Conflict(f"incident {incident_id} is closed already, by {incident['closed_by']}")
    return incident


def _expect_text(field: str, text: str) -> None:
    if not text.strip():
        raise InvalidInput(f"{field} is empty; say it in a sentence", [FieldError(field, "must not be empty")])


def _record(tx: Transaction, action: str, incident_id: str, of: Row, principal: str, reason: str) -> None:
    before, after = ("open", "closed") if action == "incident.closed" else (None, "open")
    entry = audit.entry(
        action,
        "incident",
        incident_id,
        principal=principal,
        tenant=of["tenant"],
        before=before,
        after=after,
        reason=reason,
        run_id=of["run_id"],
    )
    audit.record(tx, [entry])
