"""What only the App knows of a workflow: whether its tools and agents are there and take the arguments it gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pilothouse.agents.workflow.definition import Workflow
from pilothouse.agents.workflow.expressions import NUMBERS, argument_type
from pilothouse.agents.workflow.format import NodeSpec
from pilothouse.agents.workflow.source import Location, Problem, suggestion
from pilothouse.agents.workflow.types import ANY, Type

Schema = Mapping[str, Any]

KINDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "object"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Tools and agents by name, each with the JSON Schema of what it takes; `sources` are those of more tools."""

    tools: Mapping[str, Schema]
    agents: Mapping[str, Schema]
    sources: Collection[str] = ()

    def has_tool(self, name: str) -> bool:
        """The tools of a source are known only once it is asked."""
        return name in self.tools or any(name == each or name.startswith(f"{each}_") for each in self.sources)


def check_surroundings(workflow: Workflow, around: Surroundings) -> None:
    """Raises WorkflowError that names each tool, agent and argument that does not fit, with its place."""
    problems = [*_unknown_names(workflow, around), *_wrong_arguments(workflow, around)]
    if problems:
        raise workflow.source.error(problems)


def _unknown_names(workflow: Workflow, around: Surroundings) -> Iterator[Problem]:
    for location, name in workflow.tools():
        if not around.has_tool(name):
            yield Problem(f"there is no tool {name!r}{suggestion(name, [*around.tools, *around.sources])}", location)
    for location, name in workflow.agents():
        if name not in around.agents:
            yield Problem(f"there is no agent {name!r}{suggestion(name, around.agents)}", location)


def _wrong_arguments(workflow: Workflow, around: Surroundings) -> Iterator[Problem]:
    for location, node, scope in workflow.callers():
        what, name = ("tool", node.tool) if node.tool is not None else ("agent", node.agent)
        schema = (around.tools if node.tool is not None else around.agents).get(str(name))
        if schema is not None:
            yield from _misfits(f"{what} {name!r}", schema, (location, node), scope)


def _misfits(
    what: str, schema: Schema, caller: tuple[Location, NodeSpec], scope: Mapping[str, Type]
) -> Iterator[Problem]:
    location, node = caller
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in node.arguments:
            yield Problem(f"{what} needs the argument {name!r}", location)
    for name, value in node.arguments.items():
        place = (*location, "arguments", name)
        if name not in known:
            if schema.get("additionalProperties") is False:
                yield Problem(f"{what} has no argument {name!r}{suggestion(name, known)}", place, is_key=True)
            continue
        wanted, given = _type_of(known[name]), argument_type(value, scope)
        if not _takes(wanted, given):
            yield Problem(f"argument {name!r} is {given.one}; {what} takes {wanted.one}", place)


def _type_of(schema: Schema) -> Type:
    """The type as far as it can be told; `any` where it cannot."""
    kind = schema.get("type")
    return Type(KINDS[kind], ANY if kind == "array" else None) if isinstance(kind, str) and kind in KINDS else ANY


def _takes(wanted: Type, given: Type) -> bool:
    """What may be null or a fraction is seen when it runs."""
    return {wanted.kind, given.kind} <= NUMBERS or wanted.takes(replace(given, is_optional=False))
