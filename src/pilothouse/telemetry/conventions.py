"""What spans and their attributes are called: OpenTelemetry's semantic conventions for GenAI, and our own names.

The one place that knows them, so that a change of the conventions is a change of this file.
Source: OpenTelemetry, "Semantic conventions for generative AI systems", version 1.37.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Attribute = str | int | float | bool

SCOPE = "pilothouse"

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_INSTANCE = "service.instance.id"

ERROR_TYPE = "error.type"
OPERATION = "gen_ai.operation.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"

RUN = "pilothouse.run.id"
ATTEMPT = "pilothouse.attempt"
TENANT = "pilothouse.tenant"
LANE = "pilothouse.lane"
VERSION = "pilothouse.version"
WORKER = "pilothouse.worker.id"
STATE = "pilothouse.state"
ENDING = "pilothouse.ending"
STEP = "pilothouse.step"
STEP_KIND = "pilothouse.step.kind"
TRIES = "pilothouse.tries"
ROUTE = "pilothouse.route"
COST = "pilothouse.cost_usd"
CALLED_BY = "pilothouse.called_by"
EFFECT = "pilothouse.effect"
APPROVAL = "pilothouse.approval.id"
DECIDED_BY = "pilothouse.approval.decided_by"
WAITED_AFTER = "pilothouse.waited_after"

INVOKE_AGENT = "invoke_agent"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"


class Kind:
    """The kinds of spans, as numbers of the protocol."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    CONSUMER = 5


class Span(NamedTuple):
    """One span, ready to be sent: ids in hexadecimal, instants in microseconds. `error`: why it failed, if it did."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str | None
    started_at: int
    ended_at: int
    attributes: Mapping[str, Attribute]
    error: str | None = None


def provider_of(model: str) -> tuple[str, str]:
    """The provider and the model's own name of `provider:model`."""
    provider, _, name = model.partition(":")
    return (provider, name) if name else ("", model)
