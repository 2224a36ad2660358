"""The bodies that requests may have: what each field means, and within which bounds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from pilothouse.control.runs import MAX_BATCH
from pilothouse.web.bodies import Body, Instant, Reason, Text


class Submit(Body):
    """A run that somebody wants."""

    agent: Text = Field(description="The name of a registered agent.")
    input: Any = Field(description="Held against the agent's input schema.")
    lane: Literal["critical", "normal", "low"] | None = Field(None, description="The agent's own unless given.")
    priority: int | None = Field(None, ge=0, le=9, description="Within the lane; higher goes first.")
    at: Instant | None = Field(
        None, description="Not before this instant: ISO 8601 with a time zone. At once unless given."
    )
    idempotency_key: Text | None = Field(None, description="Submitting twice with it yields one run.")
    tenant: Text | None = Field(None, description="Whom the run belongs to: the key's tenant, else `default`.")
    concurrency_key: Text | None = Field(
        None, description="Runs of one key share the agent's `max_running_per_key` slots."
    )
    webhook_url: Text | None = Field(None, description="Told by a signed POST when the run has ended.")


class SubmitMany(Body):
    """Runs to submit in one transaction. Each is checked by itself; its place in the list is that of its answer."""

    runs: list[Any] = Field(max_length=MAX_BATCH, json_schema_extra={"items": {"$ref": "#/components/schemas/Submit"}})


class Cancel(Body):
    """Why a run is not wanted any more."""

    reason: Reason = ""


class Redrive(Body):
    """`failure`: finished steps answer from their checkpoints. `start`: every step is executed again."""

    start_from: Literal["failure", "start"] = Field("failure", alias="from")
    reason: Reason = ""


class Dismiss(Body):
    """Why a dead letter needs no more attention."""

    reason: Reason = ""


class DeadChoice(Body):
    """Which dead letters are meant: those that fit every filter, or, said expressly, all of them."""

    agent: Text | None = None
    tenant: Text | None = None
    error_type: Text | None = Field(None, description="The name of the exception that failed the run.")
    all: bool = False

    @model_validator(mode="after")
    def _means_some(self) -> DeadChoice:
        if not self.all and self.agent is None and self.tenant is None and self.error_type is None:
            raise ValueError('give agent, tenant or error_type, or "all": true for every dead letter')
        return self


class RedriveDead(DeadChoice, Redrive):
    """Dead letters to queue again."""


class DismissDead(DeadChoice, Dismiss):
    """Dead letters to set aside."""


class NewKey(Body):
    """An API key to make."""

    name: Text = Field(max_length=100, description="Who will use it; the audit names it.")
    role: Literal["viewer", "operator", "admin"] = Field(description="What it may do.")
    tenant: Text | None = Field(None, description="Only this tenant's runs.")
    expires_at: Instant | None = Field(None, description="Until when it is good; for ever unless given.")


ALL: tuple[type[BaseModel], ...] = (Submit, SubmitMany, Cancel, Redrive, Dismiss, RedriveDead, DismissDead, NewKey)
