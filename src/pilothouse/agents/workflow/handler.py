"""A workflow as an agent's handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter, create_model

from pilothouse.agents.workflow.definition import Workflow
from pilothouse.agents.workflow.runner import WorkflowRun
from pilothouse.control.agents import WORKFLOW
from pilothouse.engine.agent import DEFINITION, SOURCE
from pilothouse.engine.context import Context


def make_handler(workflow: Workflow) -> Callable[..., Awaitable[Any]]:
    """A handler that takes the workflow's input and returns its output."""
    output = _output_type(workflow)
    adapter: TypeAdapter[Any] = TypeAdapter(output)

    async def handler(ctx: Context, input: Any) -> Any:
        return adapter.validate_python(await WorkflowRun(workflow, ctx, input.model_dump(mode="json")).run())

    handler.__annotations__ |= {"ctx": Context, "input": workflow.input_model(), "return": output}
    handler.__doc__ = workflow.spec.description
    setattr(handler, SOURCE, workflow.source.text)
    setattr(handler, DEFINITION, WORKFLOW)
    return handler


def _output_type(workflow: Workflow) -> Any:
    output, fields = workflow.spec.output, workflow.fields
    if isinstance(output, str):
        return fields[output].python() | None
    names = workflow.spec.state if output is None else output
    given: dict[str, Any] = {name: (fields[name].python() | None, None) for name in names}
    return create_model("Output", **given)


def agent_options(workflow: Workflow) -> dict[str, Any]:
    """What the workflow's limits say of its agent, as `App.agent` takes it."""
    limits = workflow.spec.limits.model_dump(exclude={"max_nodes"}, exclude_none=True)
    return limits if workflow.spec.model is None else {**limits, "model": workflow.spec.model}
