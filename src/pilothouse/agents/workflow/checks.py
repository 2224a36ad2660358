"""What only the App knows of a workflow: whether the tools and the agents that it names are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pilothouse.agents.workflow.definition import Workflow
from pilothouse.agents.workflow.source import Problem, suggestion


def check_names(workflow: Workflow, *, tools: Collection[str], agents: Collection[str]) -> None:
    """Raises WorkflowError that names each one that is missing, with its place."""
    problems = list(_problems(workflow, tools, agents))
    if problems:
        raise workflow.source.error(problems)


def _problems(workflow: Workflow, tools: Collection[str], agents: Collection[str]) -> Iterator[Problem]:
    for location, name in workflow.tools():
        if not any(name == tool or name.startswith(f"{tool}_") for tool in tools):
            yield Problem(f"there is no tool {name!r}{suggestion(name, tools)}", location)
    for location, name in workflow.agents():
        if name not in agents:
            yield Problem(f"there is no agent {name!r}{suggestion(name, agents)}", location)
