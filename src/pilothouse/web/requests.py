"""The bodies that requests may have: what each field means, and within which bounds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from pilothouse.control.alerts import MAX_MINUTES
from pilothouse.control.bulk import MOST
from pilothouse.control.incidents import HOURS, MAX_HOURS
from pilothouse.control.runs import MAX_BATCH
from pilothouse.control.stability import LONGEST_SCALE, MOST_ACTIONS
from pilothouse.domain.runs import RunState
from pilothouse.web.bodies import Body, Instant, Number, Reason, Text


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
    user: Text | None = Field(None, description="For whom the run works; limits per user count what it spends.")
    webhook_url: Text | None = Field(None, description="Told by a signed POST when the run has ended.")


class SubmitMany(Body):
    """Runs to submit in one transaction. Each is checked by itself; its place in the list is that of its answer."""

    runs: list[Any] = Field(max_length=MAX_BATCH, json_schema_extra={"items": {"$ref": "#/components/schemas/Submit"}})


class Cancel(Body):
    """Why a run is not wanted any more. `lineage`: its root and all that came of it. `dry_run`: only tell what."""

    reason: Reason = ""
    lineage: bool = False
    dry_run: bool = False


class Redrive(Body):
    """`failure`: finished steps answer from their checkpoints. `start`: every step is executed again."""

    start_from: Literal["failure", "start"] = Field("failure", alias="from")
    step: Text | None = Field(None, description="What had not finished when this step began is executed again.")
    reason: Reason = ""


class RunChoice(Body):
    """Which runs are meant: those that fit every filter, those of a list, or, said expressly, all of them."""

    ids: list[Text] | None = Field(None, max_length=MOST)
    state: RunState | None = None
    agent: Text | None = None
    lane: Text | None = None
    tenant: Text | None = None
    version: Text | None = Field(None, description="The beginning of a fingerprint.")
    text: Text | None = Field(None, description="In the input or the error.")
    error_type: Text | None = Field(None, description="The name of the exception that failed the run.")
    created_after: Instant | None = None
    created_before: Instant | None = None
    all: bool = False
    dry_run: bool = Field(False, description="Only tell what would be done.")
    reason: Reason = ""

    @model_validator(mode="after")
    def _means_some(self) -> RunChoice:
        meant = self.model_dump(exclude={"all", "dry_run", "reason", "start_from"}, exclude_none=True)
        if not meant and not self.all:
            raise ValueError('give a filter or ids, or "all": true for all runs')
        return self


class CancelMany(RunChoice):
    """Runs to cancel, at most 500 at once."""


class RedriveMany(RunChoice):
    """Failed runs to queue again, at most 500 at once."""

    start_from: Literal["failure", "start"] = Field("failure", alias="from")


class Dismiss(Body):
    """Why a dead letter needs no more attention."""

    reason: Reason = ""


class Trip(Body):
    """A kill switch to trip. `hold`: what runs stops before its next effect, and goes on after the reset. `drain`: it
    finishes. `abort`: submits are refused too, and what runs is given back at once.
    """

    scope: Text = Field(
        max_length=300,
        description="global, tenant:NAME, agent:NAME, version:FINGERPRINT, lane:NAME or tool:NAME.",
    )
    mode: Literal["hold", "drain", "abort"] = "hold"
    reason: Reason = ""


class Suspend(Body):
    """Why an agent is to do nothing for now."""

    reason: Reason = ""


class Promote(Body):
    """What an agent shall do more of on its own."""

    action: Text = Field(description="A tool's name, or that of an approval.")
    to: Literal["assisted", "autonomous"] | None = Field(None, description="One level up unless given.")
    version: Text | None = Field(None, description="The beginning of a fingerprint; the registered one unless given.")


class Demote(Body):
    """What an agent shall do less of on its own."""

    action: Text = Field("*", description="A tool's name, or that of an approval; `*` stands for all.")
    to: Literal["supervised", "assisted"] = "supervised"
    version: Text | None = Field(None, description="The beginning of a fingerprint; the registered one unless given.")
    reason: Reason = ""


class Scores(Body):
    """Scores of an agent's latest runs, in order of time, and what they are held against."""

    scores: list[float] = Field(min_length=1, max_length=1000)
    baseline: float


class StartPlan(Body):
    """The seven-day stability plan of an agent's registered version."""

    agent: Text
    days_scale: float = Field(1.0, gt=0, le=LONGEST_SCALE, description="How long a day of the plan lasts, in days.")
    target_level: Literal["assisted", "autonomous"] = Field("autonomous", description="The level of the last day.")
    actions_per_day: int | None = Field(
        None,
        ge=1,
        le=MOST_ACTIONS,
        description="The cap of the last day; the setting max_actions_per_day unless given.",
    )


class StopPlan(Body):
    """Why a stability plan is not wanted any more."""

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


class Resolve(Body):
    """Whether an effect of unknown outcome took place."""

    happened: bool
    result: Any = Field(None, description="What the call returned, where it took place; any JSON.")
    note: Reason = Field(min_length=1, description="How you know; it goes into the audit.")


class OpenIncident(Body):
    """A bad action to report."""

    effect: Text = Field(description="The bad effect's id.")
    reason: Reason = Field(min_length=1, description="Why it is bad.")
    severity: Literal["critical", "minor"] = Field("critical", description="Critical ones count against autonomy.")
    hours: int = Field(HOURS, ge=0, le=MAX_HOURS, description="How far around it siblings are looked for.")


class CorrectingRun(Body):
    """A run that corrects an effect."""

    agent: Text
    input: Any = None


class CorrectEffect(Body):
    """What was done about an effect of an incident."""

    effect: Text = Field(description="The effect that is corrected.")
    note: Reason = Field(min_length=1, description="What was done.")
    run: CorrectingRun | None = Field(None, description="A run to submit that does it.")


class CloseIncident(Body):
    """What was learned of it."""

    note: Reason = Field(min_length=1)


class NewKey(Body):
    """An API key to make."""

    name: Text = Field(max_length=100, description="Who will use it; the audit names it.")
    role: Literal["viewer", "operator", "admin"] = Field(description="What it may do.")
    tenant: Text | None = Field(None, description="Only this tenant's runs.")
    expires_at: Instant | None = Field(None, description="Until when it is good; for ever unless given.")


class EraseTenant(Body):
    """That everything of a tenant shall be gone."""

    confirm: Text = Field(description="The tenant's name once more: it cannot be undone.")
    cancel: bool = Field(False, description="Cancel its runs that have not ended; otherwise they are a conflict.")
    reason: Reason = Field("", description="It stays in the audit, so name nobody.")


class Decide(Body):
    """A person's decision on an approval."""

    decision: Literal["approve", "reject", "revise"]
    note: Reason = Field("", description="Why; the agent is told. Needed to reject, and to send back.")
    arguments: dict[str, Any] | None = Field(
        None, description="All arguments as they shall be; as they are if left out."
    )
    arguments_hash: Text | None = Field(None, description="Of the arguments that were seen; refused if others stand.")


class Delegate(Body):
    """Who decides instead."""

    to: Text = Field(description="A principal, such as key:grace, or a channel of approval_channels.")
    note: Reason = ""


class ExplainPolicy(Body):
    """An action that an agent might propose, and the facts around it."""

    agent: Text = "agent"
    action: Text = Field(description="The name of a tool or of an approval.")
    kind: Literal["tool", "approval"] = "tool"
    effect: Literal["pure", "read", "idempotent", "write", "irreversible"] = "write"
    platform: Text | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    amount_usd: float = Field(0.0, ge=0, le=1e12)
    billing: Literal["none", "one_time", "recurring"] = "none"
    people_affected: int = Field(0, ge=0, le=10**12)
    risk: int = Field(0, ge=0, le=4)
    data_class: Text | None = None
    reversible: bool = True
    tenant: Text = "default"
    called_by: Literal["code", "model"] = "code"
    first_time: bool = False
    confidence: float | None = Field(None, ge=0, le=1)
    autonomy: Literal["supervised", "assisted", "autonomous"] = "assisted"
    at: Instant | None = Field(None, description="When: ISO 8601 with a time zone. Now unless given.")


Unit = Literal["microusd", "tokens", "actions", "calls", "seconds"]


class SetBudget(Body):
    """A limit to set from now on."""

    scope: Text = Field(description="As the command line takes it: `global`, `tenant:acme`, `agent:*`, `run@triage`, …")
    period: Literal["run", "day", "month"]
    unit: Unit
    amount: Number | None = Field(description="In the unit; null lifts the limit.")
    reason: Reason = ""


class GrantMore(Body):
    """How much more a run may use than it has used so far."""

    unit: Unit = "microusd"
    amount: Number = Field(description="In the unit.")
    reason: Reason = ""


class Reconcile(Body):
    """A provider's usage or cost export, to be compared with the ledger."""

    csv: str = Field(min_length=1, description="The file as text.")
    provider: str | None = Field(None, description="Whose models are meant; found by the columns where it can be.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Which column holds `day`, `model`, `input`, `output` and `cost`."
    )
    book: bool = Field(False, description="Settle what is unsettled by it, and book the differences.")


class SettleReservation(Body):
    """What a call has cost whose attempt could not say."""

    microusd: Number = Field(description="0 where the call did not happen.")
    tokens: Number | None = Field(None, description="As many as were reserved unless given.")
    actions: Number | None = Field(None, description="As many as were reserved unless given.")
    reason: Reason = ""


class Acknowledge(Body):
    """That somebody looks after an alert."""

    reason: Reason = ""


class NewSilence(Body):
    """Whose messages to keep back: patterns such as `agent:refund*`, all of which must match; why, and for how long."""

    rule: Text = "*"
    subject: Text = "*"
    agent: Text = "*"
    minutes: float = Field(gt=0, le=MAX_MINUTES)
    reason: Reason = Field(min_length=1)


class SendTest(Body):
    """The channel, or its kind where the settings have one of it."""

    channel: Text = Field(description="Such as email:ops@example.com, or only email.")


class AcceptDrift(Body):
    """Of which agent."""

    agent: Text


ALL: tuple[type[BaseModel], ...] = (
    Acknowledge,
    NewSilence,
    SendTest,
    AcceptDrift,
    Submit,
    SubmitMany,
    Cancel,
    Redrive,
    CancelMany,
    RedriveMany,
    Dismiss,
    Suspend,
    Trip,
    Promote,
    Demote,
    Scores,
    StartPlan,
    StopPlan,
    RedriveDead,
    DismissDead,
    Resolve,
    OpenIncident,
    CorrectEffect,
    CloseIncident,
    NewKey,
    EraseTenant,
    Decide,
    Delegate,
    ExplainPolicy,
    SetBudget,
    GrantMore,
    SettleReservation,
    Reconcile,
)
