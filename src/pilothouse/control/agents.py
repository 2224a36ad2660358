"""Agents as the database knows them: what workers registered, and how an input is held against its schema."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs

from pilothouse import payloads
from pilothouse.control import audit
from pilothouse.errors import FieldError, InvalidInput, NotFound
from pilothouse.store.database import Database, Row, Transaction

CODE, WORKFLOW = "code", "workflow"


@dataclass(frozen=True, slots=True)
class AgentCard:
    """What a worker tells the database about one of its agents. Times in microseconds, schemas as JSON text."""

    name: str
    app: str
    description: str
    lane: str
    priority: int
    max_attempts: int
    max_losses: int
    timeout_us: int
    run_timeout_us: int | None
    input_schema: str
    output_schema: str
    state_version: int
    fingerprint: str
    max_running: int | None = None
    max_running_per_key: int | None = None
    autonomy: str | None = None
    definition: str = CODE


_CARD_FIELDS = tuple(AgentCard.__dataclass_fields__)


def register(tx: Transaction, cards: Sequence[AgentCard], *, principal: str) -> None:
    """Makes agents known. An agent that is new or differs from what was known is recorded in the audit."""
    known = {row["name"]: row for row in list_in(tx)}
    changed = [card for card in cards if _differs(card, known.get(card.name))]
    if not changed:
        return
    rows = [{name: getattr(card, name) for name in _CARD_FIELDS} | {"registered_by": principal} for card in changed]
    tx.send_many("upsert_agents", rows)
    audit.record(tx, [audit.entry("agent.registered", "agent", card.name, principal=principal) for card in changed])


def _differs(card: AgentCard, known: Row | None) -> bool:
    return known is None or any(known[name] != getattr(card, name) for name in _CARD_FIELDS)


def list_in(tx: Transaction) -> list[Row]:
    return tx.fetch_all("list_agents")


async def list_agents(db: Database) -> list[Row]:
    return await db.read(list_in)


async def show_agent(db: Database, name: str) -> Row:
    """One agent. Raises NotFound with the names that come close."""
    return await db.read(lambda tx: agent_in(tx, name))


def agent_in(tx: Transaction, name: str) -> Row:
    """`show_agent` within a transaction."""
    known = list_in(tx)
    for row in known:
        if row["name"] == name:
            return row
    raise unknown_agent(name, [row["name"] for row in known])


def unknown_agent(name: str, known: Sequence[str]) -> NotFound:
    if not known:
        return NotFound(
            f"unknown agent {name!r}: no worker has registered any agent yet; "
            "start one with `pilothouse up` or `pilothouse worker`"
        )
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known agents: {', '.join(known)}"
    return NotFound(f"unknown agent {name!r}; {hint}")


def check_input(agent: str, schema: str, value: object) -> None:
    """Holds an input against its agent's JSON Schema. Raises InvalidInput that names each field."""
    validator = _validator(schema)
    if validator.is_valid(value):
        return
    fields = [_field_error(error) for error in validator.iter_errors(value)]
    told = "; ".join(f"{field.field}: {field.message}" for field in fields[:5])
    raise InvalidInput(f"the input does not fit agent {agent!r}: {told}", fields)


@lru_cache(maxsize=512)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(payloads.decode(schema))


def _field_error(error: Any) -> FieldError:
    path = ".".join(str(part) for part in error.instance_path)
    return FieldError(f"input.{path}" if path else "input", str(error.message))


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """An agent as users see it, schemas as JSON and times in seconds."""
    return {
        "name": row["name"],
        "app": row["app"],
        "description": row["description"],
        "lane": row["lane"],
        "priority": row["priority"],
        "max_attempts": row["max_attempts"],
        "max_losses": row["max_losses"],
        "timeout_seconds": row["timeout_us"] / 1_000_000,
        "run_timeout_seconds": row["run_timeout_us"] / 1_000_000 if row["run_timeout_us"] else None,
        "input_schema": payloads.decode(row["input_schema"]),
        "output_schema": payloads.decode(row["output_schema"]),
        "state_version": row["state_version"],
        "fingerprint": row["fingerprint"],
        "max_running": row["max_running"],
        "max_running_per_key": row["max_running_per_key"],
        "autonomy": row["autonomy"],
        "definition": row["definition"],
        "registered_at": row["registered_at"],
        "registered_by": row["registered_by"],
    }
