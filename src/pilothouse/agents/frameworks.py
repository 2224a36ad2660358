"""Which adapter an agent of another framework is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pilothouse.agents.declared import read_registered
from pilothouse.engine.tools import ToolFacts
from pilothouse.errors import ConfigError


def adapt(
    agent: Any, name: str | None, deps: Any, *, effects: Mapping[str, str | ToolFacts], has_route: bool
) -> tuple[str, Callable[..., Awaitable[Any]]]:
    """A name and a handler for the agent; `has_route` where a route stands in for its models.

    Raises ConfigError for an object that no adapter knows, and for what is said of a tool and cannot be.
    """
    known = read_registered(effects)
    framework = type(agent).__module__.partition(".")[0]
    match framework:
        case "pydantic_ai":
            from pilothouse.agents import pydantic_ai

            chosen = _name(name or agent.name, agent)
            return chosen, pydantic_ai.make_handler(chosen, agent, deps, known)
        case "agents":
            from pilothouse.agents import openai_agents

            chosen = _name(name or agent.name, agent)
            if not has_route:
                openai_agents.refuse_own_models(agent)
            return chosen, openai_agents.make_handler(chosen, agent, deps, known)
        case "langgraph":
            from pilothouse.agents import langgraph

            chosen = _name(name or getattr(agent, "name", None), agent)
            return chosen, langgraph.make_handler(chosen, agent, known)
    raise ConfigError(
        f"{type(agent).__module__}.{type(agent).__qualname__} is no agent that Pilothouse knows how to run: "
        "it takes an Agent of Pydantic AI or of the OpenAI Agents SDK, a graph of LangGraph, or a function"
    )


def _name(name: str | None, agent: Any) -> str:
    if not name:
        raise ConfigError(f"{type(agent).__name__} has no name; give it one: app.add_agent(agent, name='support')")
    return name
