"""What a run asked of models and tools: one record per call, written with the step that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pilothouse.control import blobs, counters
from pilothouse.control.counters import Tally
from pilothouse.domain.prices import Usage
from pilothouse.domain.routing import routing_of
from pilothouse.store.database import Database, Row, Transaction

CallOutcome = Literal["answered", "cached", "failed", "skipped"]
CalledBy = Literal["code", "model"]


class ModelCall(NamedTuple):
    """One question to one model. `outcome` "skipped": not asked, for `reason`. Instants and durations in microseconds.

    `raw_usage` is what the provider counted, as JSON; `price` says where the price was found.
    """

    route: str
    model: str
    outcome: CallOutcome
    reason: str | None
    message: str | None
    usage: Usage
    raw_usage: str | None
    cost_microusd: int
    price: str | None
    started_at: int
    latency_us: int
    reservation_id: str | None = None


class ToolCall(NamedTuple):
    """One call of a tool. `arguments` is JSON; the result is that of its step."""

    tool: str
    effect: str
    platform: str | None
    called_by: CalledBy
    arguments: str
    outcome: Literal["succeeded", "failed"]
    cost_microusd: int
    started_at: int
    latency_us: int
    reservation_id: str | None = None
    effect_id: str | None = None


class StepCalls(NamedTuple):
    """The calls of one step, in their order."""

    models: tuple[ModelCall, ...] = ()
    tools: tuple[ToolCall, ...] = ()


NO_CALLS = StepCalls()


class OwnedCalls(NamedTuple):
    """Whose calls they are."""

    run_id: str
    key: str
    attempt: int
    calls: StepCalls


def write_calls(tx: Transaction, owned: Sequence[OwnedCalls]) -> None:
    """Writes the calls of steps that were stored in this transaction."""
    models = [
        _model_row(each, number, call) for each in owned for number, call in enumerate(each.calls.models, start=1)
    ]
    tools = [_tool_row(each, call) for each in owned for call in each.calls.tools]
    tx.send_many("insert_model_calls", models)
    packed = blobs.pack(tools, "arguments", run_id="run_id")
    tx.send_many("insert_tool_calls", packed.rows)
    packed.keep(tx, {row["run_id"] for row in tools})
    tally = counters.tally(tx)
    for each in owned:
        _count(tally, each)


def _count(tally: Tally, owned: OwnedCalls) -> None:
    run_id, calls = owned.run_id, owned.calls
    if calls.models:
        routing = routing_of(calls.models)
        tally.call(run_id, "routing", f"{routing.route}/{routing.outcome}")
    for model in calls.models:
        tally.call(run_id, "model_calls", f"{model.model}/{model.outcome}")
        tally.call(run_id, "cost_microusd", f"model/{model.model}", model.cost_microusd)
        tally.call(run_id, "tokens", "input", model.usage.total_input)
        tally.call(run_id, "tokens", "output", model.usage.total_output)
        if model.outcome == "answered":
            tally.call(run_id, "model_us", model.model, model.latency_us)
    for tool in calls.tools:
        tally.call(run_id, "tool_calls", f"{tool.tool}/{tool.outcome}")
        tally.call(run_id, "tool_us", tool.tool, tool.latency_us)
        tally.call(run_id, "cost_microusd", f"tool/{tool.tool}", tool.cost_microusd)


def _owner(owned: OwnedCalls) -> Row:
    return {"run_id": owned.run_id, "key": owned.key, "attempt": owned.attempt}


def _model_row(owned: OwnedCalls, number: int, call: ModelCall) -> Row:
    return _owner(owned) | {
        "number": number,
        "route": call.route,
        "model": call.model,
        "outcome": call.outcome,
        "reason": call.reason,
        "message": call.message,
        "input_tokens": call.usage.input,
        "cache_read_tokens": call.usage.cache_read,
        "cache_write_tokens": call.usage.cache_write,
        "output_tokens": call.usage.output,
        "reasoning_tokens": call.usage.reasoning,
        "usage": call.raw_usage,
        "cost_microusd": call.cost_microusd,
        "price": call.price,
        "started_at": call.started_at,
        "latency_us": call.latency_us,
        "reservation_id": call.reservation_id,
    }


def _tool_row(owned: OwnedCalls, call: ToolCall) -> Row:
    return _owner(owned) | call._asdict()


def calls_of_run(tx: Transaction, run_id: str) -> tuple[list[Row], list[Row]]:
    """A run's calls of models and of tools, these with their agent and what they came to, in the order in which they
    began.
    """
    tools = tx.fetch_all("tool_calls_of_run", run_id=run_id)
    return tx.fetch_all("model_calls_of_run", run_id=run_id), blobs.unpack(tx, tools, "arguments", "result")


def totals(db: Database, run_ids: Sequence[str]) -> dict[str, Row]:
    """What runs have come to, by their ids: state, cost, tokens, calls. It blocks; for threads that may wait."""
    rows = db.read_blocking(lambda tx: tx.fetch_many("run_totals", [{"id": id} for id in run_ids]))
    return {row["id"]: row for row in rows}
