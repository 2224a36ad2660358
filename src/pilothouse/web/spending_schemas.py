"""What answers about money look like, for the OpenAPI document, as the others in `schemas`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Unit = Literal["microusd", "tokens", "actions", "calls", "seconds"]


class Budget(BaseModel):
    """A limit as it stands. Money is in micro-dollars."""

    account: str = Field(
        description="Whose: `global`, `tenant:acme`, …; `agent:*` where nobody has used anything of it."
    )
    scope: str = Field(description="Where the limit was set.")
    period: str = Field(description="`run`, a day such as 2026-11-21, or a month such as 2026-11.")
    unit: Unit
    limit: int | None = Field(description="Null: an operator has lifted it.")
    settled: int
    reserved: int = Field(description="For calls under way, and those of which nobody knows what they have cost.")
    free: int | None
    used_share: float
    burn_per_hour: float | None = Field(description="Over the period so far.")
    exhausted_at: datetime | None = Field(description="If it goes on so; null where it lasts until the period ends.")
    level: Literal["fine", "low", "used_up", "no_limit"]
    source: Literal["settings", "operator"]
    set_by: str
    set_at: datetime


class BudgetList(BaseModel):
    items: list[Budget]
    next: None


class BudgetSet(BaseModel):
    scope: str
    period: Literal["run", "day", "month"]
    unit: Unit
    amount: int | None
    before: int | None = Field(description="What it was; null also where there was none.")
    over: list[str] = Field(description="Accounts that have used more already.")


class Rule(Budget):
    did: list[Literal["blocked", "clamped", "refused"]] = Field(description="What it has done to the run.")


class RouteCaps(BaseModel):
    name: str
    calls: int
    max_calls_per_run: int
    max_input_tokens: int
    max_output_tokens: int


class RunBudget(BaseModel):
    """Every limit that applies to a run."""

    run: str
    state: str
    rules: list[Rule]
    routes: list[RouteCaps]
    questions: int = Field(description="How many it has asked models.")
    degraded: int = Field(description="Questions that went to the smaller route.")
    next: list[str] = Field(description="Commands that make room where it was blocked.")


class StillWaits(BaseModel):
    account: str
    period: str
    next: str


class Granted(BaseModel):
    run: str
    unit: Unit
    used: int
    limit: int
    waits: list[StillWaits] = Field(description="Other limits that keep it waiting.")


class Cost(BaseModel):
    calls: int
    tokens: int
    actions: int
    cost_microusd: int
    share: float
    reserved_microusd: int
    runs: int
    succeeded_runs: int
    microusd_per_success: int | None


class CostReport(BaseModel):
    """Each item also has the name that the report is by: its agent, model, day and so on; null where it has none."""

    by: Literal["agent", "version", "model", "tenant", "day", "user", "tool", "platform"]
    first: str = Field(alias="from")
    last: str = Field(alias="to")
    items: list[Cost]
    next: None


class Compared(BaseModel):
    """A day and a model on both sides. Nulls are what one side does not know; `model` "" is all models together."""

    day: str
    model: str
    ours: list[str] = Field(description="The ledger's names for it.")
    ours_microusd: int | None
    held_microusd: int = Field(description="Reserved for calls of which nobody knows yet.")
    theirs_microusd: int | None
    difference_microusd: int | None
    ours_tokens: int | None
    theirs_tokens: int | None


class LeftAlone(BaseModel):
    day: str
    model: str


class Booked(BaseModel):
    settled: int = Field(description="Reservations that were settled by it.")
    settled_microusd: int
    adjusted_microusd: int
    left: list[LeftAlone] = Field(description="Rows whose day goes on, or of which one side knows no cost.")


class Reconciled(BaseModel):
    provider: str | None
    columns: dict[str, str]
    items: list[Compared]
    booked: Booked | None


class Reservation(BaseModel):
    """What a call may have cost whose attempt has ended before it could say."""

    id: str
    state: Literal["held", "settled"]
    run_id: str
    run_state: str | None = Field(None, description="Null where the run is not in the run log any more.")
    key: str
    attempt: int
    tenant: str
    agent: str
    user_id: str | None
    platform: str | None
    tool: str | None
    model: str | None
    microusd: int
    tokens: int
    actions: int
    created_at: datetime


class ReservationList(BaseModel):
    items: list[Reservation]
    next: None


class LimitMet(BaseModel):
    account: str
    period: str
    unit: Unit
    did: Literal["blocked", "clamped", "refused"]


class Spent(BaseModel):
    """What a run has used, and the limits that it has met."""

    cost_microusd: int
    reserved_microusd: int
    tokens: int
    actions: int
    degraded: int
    limits: list[LimitMet]


class SpentOf(BaseModel):
    period: str
    settled_microusd: int
    reserved_microusd: int
    limit_microusd: int | None


class Spending(BaseModel):
    """What all runs together have spent today and this month, and how many runs wait for room under a limit."""

    day: SpentOf
    month: SpentOf
    blocked_runs: int
