"""The format of a workflow: what may stand where. Its JSON Schema is made of these classes."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pilothouse.domain.retries import Backoff, RetryPolicy

START, END = "START", "END"

NODE_KINDS = ("model", "tool", "python", "approve", "agent", "sleep", "wait", "map")


class Part(BaseModel):
    """A part of a workflow; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldObject(Part):
    """A field with more to say than its type; `fields` are those of an object."""

    type: str
    fields: dict[str, FieldSpec] | None = None
    description: str = ""
    default: Any = None


FieldSpec = Annotated[str | FieldObject, Field(description="A type, such as str or list[int], or a field in full.")]


class ModelNode(Part):
    """Asks a model. `output` is the type of the answer; without one it is that of the fields that the node writes."""

    prompt: str
    system: str | None = None
    output: FieldSpec | None = None
    tools: list[str] = []
    route: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    max_rounds: int = Field(10, ge=1)
    max_tool_calls: int = Field(25, ge=1)
    cache_seconds: float | None = Field(None, ge=0)


class ApproveNode(Part):
    """Asks people, as `ctx.approve` does; the result says whether they approved, and what they said to it.

    `amount_usd` is a number or an expression. After `timeout_seconds` without a decision the run does `on_deadline`.
    """

    title: str
    recommendation: str = ""
    reasoning: str = ""
    risk: int = Field(2, ge=0, le=4)
    amount_usd: float | str = 0.0
    people_affected: int = Field(0, ge=0)
    billing: Literal["none", "one_time", "recurring"] = "none"
    reversible: bool = True
    arguments: dict[str, Any] | None = None
    timeout_seconds: float | None = Field(None, gt=0)
    on_deadline: Literal["wait", "escalate", "expire"] = "expire"


class SleepNode(Part):
    """Lets the run sleep, without a slot."""

    seconds: float = Field(0, ge=0)
    minutes: float = Field(0, ge=0)
    hours: float = Field(0, ge=0)
    days: float = Field(0, ge=0)


class WaitNode(Part):
    """Waits for a signal; its payload is the result."""

    signal: str
    timeout_seconds: float | None = Field(None, gt=0)


class MapNode(Part):
    """Does one thing for every item of a list; the results come in the order of the items."""

    over: str
    item: str = Field("item", alias="as", pattern=r"^[A-Za-z_]\w*$")
    do: NodeSpec
    at_once: int = Field(8, ge=1, le=64)


class RetrySpec(Part):
    """How often a node is tried, and how long it waits in between."""

    attempts: int = Field(1, ge=1)
    first_seconds: float = Field(0.2, ge=0)
    factor: float = Field(2.0, ge=1)
    limit_seconds: float = Field(30.0, ge=0)

    @cached_property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(self.attempts, Backoff(self.first_seconds, self.factor, self.limit_seconds))


class NodeSpec(Part):
    """One node: exactly one kind, and what it writes into the state."""

    description: str = ""
    model: ModelNode | None = None
    tool: str | None = None
    python: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    approve: ApproveNode | None = None
    agent: str | None = None
    sleep: SleepNode | None = None
    wait: WaitNode | None = None
    map: MapNode | None = None
    arguments: dict[str, Any] = {}
    writes: str | list[str] | None = None
    retry: RetrySpec = Field(default_factory=lambda: RetrySpec.model_validate({}))
    timeout_seconds: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _has_one_kind(self) -> NodeSpec:
        kinds = [kind for kind in NODE_KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            raise ValueError(f"a node has exactly one of {', '.join(NODE_KINDS)}; this one has {found}")
        if self.arguments and self.kind not in ("tool", "python", "agent"):
            raise ValueError(f"arguments are for tool, python and agent nodes, not for a {self.kind} node")
        for part in sorted({"retry", "timeout_seconds"} & self.model_fields_set):
            if self.kind not in ("tool", "python"):
                raise ValueError(f"{part} is for tool and python nodes, not for a {self.kind} node")
        return self

    @cached_property
    def kind(self) -> str:
        return next(kind for kind in NODE_KINDS if getattr(self, kind) is not None)

    @cached_property
    def written(self) -> tuple[str, ...]:
        """The fields that it writes."""
        if self.writes is None:
            return ()
        return (self.writes,) if isinstance(self.writes, str) else tuple(self.writes)


class RouteSpec(Part):
    """Where to go when a condition holds."""

    when: str
    to: str


class LoopSpec(Part):
    """Goes back to `back_to` (the node itself unless given) until the condition holds, at most `max` times in all."""

    until: str
    max: int = Field(ge=1, le=1000)
    back_to: str | None = None
    to: str


class EdgeSpec(Part):
    """Where a node leads: on to one node or to several at once, by conditions, or around a loop."""

    source: str | list[str] = Field(alias="from")
    to: str | list[str] | None = None
    routes: list[RouteSpec] | None = Field(None, min_length=1)
    default: str | None = None
    loop: LoopSpec | None = None

    @model_validator(mode="after")
    def _has_one_way(self) -> EdgeSpec:
        ways = [way for way in ("to", "routes", "loop") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(
                f"an edge has exactly one of to, routes and loop; this one has {' and '.join(ways) or 'none'}"
            )
        if self.routes is not None and self.default is None:
            raise ValueError("routes need a default: where to go when no condition holds")
        if self.default is not None and self.routes is None:
            raise ValueError("a default is for routes")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)


class LimitsSpec(Part):
    """The agent's defaults, as for `@app.agent`. `max_nodes` bounds how many nodes one run goes through."""

    lane: Literal["critical", "normal", "low"] = "normal"
    priority: int = Field(0, ge=0, le=9)
    max_attempts: int = Field(3, ge=1)
    max_losses: int = Field(5, ge=1)
    timeout_seconds: float | None = Field(None, gt=0)
    run_timeout_seconds: float | None = Field(None, gt=0)
    max_running: int | None = Field(None, ge=1)
    max_nodes: int = Field(1000, ge=1)


class MemorySpec(Part):
    """State that outlives a run: the `fields` are kept for the agent's next run of the same tenant."""

    scope: Literal["run", "agent"] = "run"
    fields: list[str] = []

    @model_validator(mode="after")
    def _fits(self) -> MemorySpec:
        if self.fields and self.scope == "run":
            raise ValueError("fields of memory outlive a run only with scope: agent")
        return self


class WorkflowSpec(Part):
    """A whole workflow."""

    name: str = Field(pattern=r"^[A-Za-z][\w-]*$", max_length=100)
    description: str = ""
    version: str | int | float = 1
    model: str | None = Field(None, description="The route that its model nodes ask unless they name another.")
    types: dict[str, dict[str, FieldSpec]] = {}
    input: dict[str, FieldSpec] = {}
    state: dict[str, FieldSpec] = {}
    output: str | list[str] | None = None
    nodes: dict[str, NodeSpec] = Field(min_length=1)
    edges: list[EdgeSpec] = Field(min_length=1)
    limits: LimitsSpec = Field(default_factory=lambda: LimitsSpec.model_validate({}))
    memory: MemorySpec = Field(default_factory=lambda: MemorySpec.model_validate({}))


for made in (FieldObject, MapNode, NodeSpec, WorkflowSpec):
    made.model_rebuild()
