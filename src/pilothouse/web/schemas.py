"""What answers look like, for the OpenAPI document. They are made from rows, and tests hold them against these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from pilothouse.web.approval_schemas import Approval
from pilothouse.web.effect_schemas import EffectSummary
from pilothouse.web.spending_schemas import Spent

RunState = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "cancelling"]


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `code` is for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    errors: list[FieldProblem] = Field([], description="Each field that does not fit.")
    error_id: str | None = Field(None, description="Of a failure of our own: what to look for in the log.")


class Submitted(BaseModel):
    id: str
    state: RunState
    url: str
    created: bool = Field(description="False where the idempotency key had made the run before.")


class SubmittedOne(Submitted):
    status: Literal[202]


class SubmittedMany(BaseModel):
    """The answers in the order of the runs; `status` tells the two kinds apart."""

    runs: list[SubmittedOne | Problem]


class RunError(BaseModel):
    type: str
    message: str


class RunSummary(BaseModel):
    id: str
    tenant: str
    agent: str
    lane: str
    priority: int
    state: RunState
    available_at: datetime | None
    attempt: int = Field(description="The number of the latest attempt; 0 before the first.")
    failures: int
    losses: int
    max_attempts: int
    parent_id: str | None
    root_id: str
    idempotency_key: str | None
    cancel_requested_at: datetime | None
    deadline_at: datetime | None
    progress_done: int | None
    progress_total: int | None
    dismissed_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: RunError | None
    fingerprint: str | None = Field(description="Of the code of the agent that it started with.")


class Run(RunSummary):
    trace_id: str
    max_losses: int
    concurrency_key: str | None
    user_id: str | None = Field(description="For whom it works, where its submitter said so.")
    state_version: int | None = Field(description="The version of its agent's state; null before the first attempt.")
    input: Any
    output: Any


class RunPage(BaseModel):
    items: list[RunSummary]
    next: str | None = Field(description="Pass it as `after` for the next page; null on the last.")
    searched_back_to: datetime | None = Field(
        description="Where a page is not full because many runs did not fit: how far back it has looked."
    )


class BulkLine(BaseModel):
    id: str
    agent: str
    tenant: str
    state: RunState = Field(description="Before it.")
    done: bool
    told: str = Field(description="The state after it, or why it was refused.")


class Bulk(BaseModel):
    """What was done to which runs, or would be."""

    dry_run: bool
    runs: list[BulkLine]
    has_more: bool = Field(description="It was not looked further: repeat it.")


class Attempt(BaseModel):
    id: str = Field(description="The attempt's public id and fencing token: run id, dot, number.")
    run_id: str
    number: int
    worker_id: str
    state: Literal["running", "succeeded", "failed", "suspended", "lost", "cancelled"]
    started_at: datetime
    finished_at: datetime | None
    error: RunError | None
    steps_executed: int
    steps_replayed: int


class Step(BaseModel):
    key: str
    kind: str
    attempt: int
    state: str
    tries: int
    request: Any
    result: Any
    error: Any
    state_version: int
    started_at: datetime
    finished_at: datetime


class Signal(BaseModel):
    name: str
    payload: Any
    principal: str
    created_at: datetime


class Wait(BaseModel):
    kind: str
    name: str
    wait_group: str


class LogLine(BaseModel):
    id: int
    run_id: str
    attempt: int
    at: datetime
    level: str
    message: str
    fields: dict[str, Any]


class AuditRecord(BaseModel):
    seq: int
    at: datetime
    tenant: str
    principal: str
    action: str
    entity: str
    entity_id: str
    before: str | None
    after: str | None
    reason: str | None
    run_id: str | None
    attempt: int | None


class AuditPage(BaseModel):
    items: list[AuditRecord]
    next: int | None = Field(description="Pass it as `before` for the next page; null on the last.")


class SealFinding(BaseModel):
    seal: int
    seq: int | None = Field(description="The record; null where the seal itself is wrong.")
    problem: str


class ErasedRecords(BaseModel):
    """What was erased of the audit, as the records say that vouch for it."""

    tenant: str
    records: int
    at: datetime
    by: str


class Verification(BaseModel):
    holds: bool
    seals: int
    records: int
    pruned: int = Field(description="Records that have left the audit; their seals are in the chain.")
    erased: list[ErasedRecords]
    unsealed: int = Field(description="Records that came after the last seal.")
    head: str | None = Field(description="The hash of the last seal; note it elsewhere.")
    has_anchor: bool
    findings: list[SealFinding]


class ModelCall(BaseModel):
    """A question to a model. Tokens are in disjoint classes; `usage` is what the provider counted."""

    run_id: str
    key: str = Field(description="The step that it belongs to.")
    attempt: int
    number: int
    route: str
    model: str
    outcome: Literal["answered", "cached", "failed", "skipped"]
    reason: str | None
    message: str | None
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage: Any
    cost_microusd: int
    price: str | None = Field(description="Where the price was found.")
    started_at: datetime
    latency_us: int


class ToolCall(BaseModel):
    """A call of a tool, and what it came to: its result, or its error."""

    run_id: str
    agent: str
    key: str = Field(description="The step that it is.")
    attempt: int
    tool: str
    effect: str
    platform: str | None
    called_by: Literal["code", "model"]
    arguments: Any
    outcome: Literal["succeeded", "failed"]
    result: Any
    error: dict[str, Any] | None
    effect_id: str | None = Field(description="Of a call that changes the world.")
    reservation_id: str | None
    cost_microusd: int
    started_at: datetime
    latency_us: int


class Breaker(BaseModel):
    """A dependency that is left alone while its circuit breaker is open."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int = Field(description="In the window that is counted now.")
    opens: int = Field(description="How often it has opened in a row.")
    open_seconds: float = Field(description="For how long it stays open; 0 where it is not.")
    changed_at: datetime
    reason: str


class BreakerList(BaseModel):
    items: list[Breaker]
    next: None


class EffectCall(BaseModel):
    """One call of it that has come to an end."""

    attempt: int
    outcome: Literal["succeeded", "failed"]
    started_at: datetime
    latency_us: int


class Effect(EffectSummary):
    question: str | None = Field(description="What its run waits to be told.")
    resolve: str | None = Field(description="The command that answers.")
    calls: list[EffectCall]
    audit: list[AuditRecord]


class Timeline(BaseModel):
    run: Run
    attempts: list[Attempt]
    steps: list[Step]
    model_calls: list[ModelCall]
    tool_calls: list[ToolCall]
    effects: list[EffectSummary]
    approvals: list[Approval]
    signals: list[Signal]
    waits: list[Wait]
    budget: Spent
    logs: list[LogLine]
    children: list[RunSummary]
    audit: list[AuditRecord]


class Why(BaseModel):
    run: str
    state: RunState
    reasons: list[str]
    next: str = Field(description="What to do about it.")


class SignalSent(BaseModel):
    first: bool = Field(description="False where a signal of this name was there already; its payload then stands.")


class DeadLetter(BaseModel):
    id: str
    tenant: str
    agent: str
    lane: str
    state: Literal["failed"]
    attempt: int
    failures: int
    losses: int
    max_attempts: int
    parent_id: str | None
    created_at: datetime
    finished_at: datetime
    error: RunError | None


class DeadPage(BaseModel):
    items: list[DeadLetter]
    next: str | None


class Count(BaseModel):
    count: int = Field(description="How many runs were changed.")


class Agent(BaseModel):
    name: str
    app: str
    description: str
    lane: str
    priority: int
    max_attempts: int
    max_losses: int
    timeout_seconds: float
    run_timeout_seconds: float | None
    input_schema: Any
    output_schema: Any
    state_version: int
    fingerprint: str = Field(description="Changes with the code of the agent's handler.")
    max_running: int | None = Field(description="Runs of it that run at once, at most; null: any number.")
    max_running_per_key: int | None = Field(description="The same for the runs of one concurrency key.")
    autonomy: Literal["supervised"] | None = Field(description="What its App declares; null: the settings decide.")
    definition: Literal["code", "workflow"]
    registered_at: datetime
    registered_by: str


class AgentList(BaseModel):
    items: list[Agent]
    next: None


class Worker(BaseModel):
    id: str
    host: str
    pid: int
    state: Literal["running", "draining", "stopped", "lost"]
    app: str
    version: str
    agents: list[str]
    slots: dict[str, int]
    started_at: datetime
    renewed_at: datetime
    lease_until: datetime
    stopped_at: datetime | None
    switch_epoch: int = Field(description="The last epoch of the kill switches that it acts by.")
    is_enabled: bool = Field(description="False where it was started with ENGINE_ENABLED=false: it claims nothing.")


class ListedWorker(Worker):
    running: int = Field(description="How many attempts it holds now.")
    is_live: bool = Field(description="It takes runs: its lease has not run out, and it does not drain.")


class WorkerList(BaseModel):
    items: list[ListedWorker]
    next: None


class Schedule(BaseModel):
    name: str
    app: str
    agent: str
    cron: str
    timezone: str
    input: Any
    lane: str | None
    priority: int | None
    tenant: str
    catch_up: Literal["none", "one", "all"]
    catch_up_limit: int
    overlap: Literal["allow", "skip", "cancel"]
    state: Literal["active", "paused", "removed"]
    next_fires: list[datetime] = Field(description="The instants that come next; empty unless it is active.")
    last_fire_at: datetime | None
    last_run_id: str | None
    last_run_state: str | None
    last_error: str | None = Field(description="Why the last fire was refused.")
    registered_at: datetime
    registered_by: str


class ScheduleList(BaseModel):
    items: list[Schedule]
    next: None


class Key(BaseModel):
    id: str
    name: str
    role: Literal["viewer", "operator", "admin"]
    tenant: str | None
    state: Literal["active", "expired", "revoked"]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class KeyList(BaseModel):
    items: list[Key]
    next: None


class CreatedKey(BaseModel):
    id: str
    key: str = Field(description="What to send as bearer token. Shown only here.")


class KeyRevoked(BaseModel):
    id: str
    state: Literal["revoked"]


class Tenant(BaseModel):
    tenant: str
    runs: int = Field(description="In the run log.")
    queued: int
    running: int
    keys: int = Field(description="Those that were not revoked.")
    schedules: int
    last_active_at: datetime | None
    state: Literal["active", "erasing", "erased"]


class TenantList(BaseModel):
    items: list[Tenant]
    next: None


class Erasure(BaseModel):
    id: str
    tenant: str
    state: Literal["under_way", "done"]
    requested_by: str
    reason: str | None
    runs: int = Field(description="Erased so far.")
    records: int = Field(description="Audit records whose names were erased so far.")
    started_at: datetime
    finished_at: datetime | None


class TenantDetails(Tenant):
    characters: int = Field(description="Of inputs, outputs, results and large payloads.")
    rows: dict[str, int] = Field(description="By table; those without any are left out.")
    erasure: Erasure | None = Field(description="The latest.")
