"""Kept answers: the same question of the same tenant gets the same answer while it lasts, where a route asks for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from pilothouse import payloads
from pilothouse.control.model_answers import ModelAnswers
from pilothouse.domain.routes import Route
from pilothouse.llm.messages import dump_response, load_response
from pilothouse.llm.prompts import Prompt

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse


FORM = 2
"""Of a kept answer's text: what was kept in another form is another question's."""


class KeptAnswer(NamedTuple):
    """An answer, and the model that gave it."""

    model: str
    response: ModelResponse


class KeptAnswers:
    """Answers by the hash of everything that they depend on: models, messages, tools, output and settings."""

    def __init__(self, store: ModelAnswers) -> None:
        self._store = store

    def question(self, route: Route, prompt: Prompt) -> str:
        """The hash of a prompt, as it goes to a route."""
        from pydantic_core import to_jsonable_python

        facts = [
            FORM,
            list(route.models),
            route.temperature,
            route.max_output_tokens,
            to_jsonable_python(list(prompt.messages), exclude={"timestamp", "run_id", "conversation_id"}),
            to_jsonable_python(prompt.parameters),
            to_jsonable_python(prompt.settings),
        ]
        return hashlib.sha256(payloads.encode(_without_instants(facts)).encode()).hexdigest()

    async def find(self, prompt: Prompt, question: str) -> KeptAnswer | None:
        text = await self._store.find(prompt.asker.tenant, question)
        if text is None:
            return None
        model, _, response = text.partition("\n")
        return KeptAnswer(model, load_response(response))

    async def keep(self, prompt: Prompt, question: str, answer: KeptAnswer, *, seconds: float) -> None:
        text = f"{answer.model}\n{dump_response(answer.response)}"
        await self._store.keep(prompt.asker.tenant, question, text, seconds=seconds)


def seconds_kept(route: Route, prompt: Prompt) -> float:
    """How long the route, or the question itself, wants its answer kept."""
    return route.cache_seconds if prompt.cache_seconds is None else prompt.cache_seconds


def _without_instants(value: object) -> object:
    """When a message was written, and the ids that it got, say nothing about its answer."""
    match value:
        case dict():
            return {key: _without_instants(item) for key, item in value.items() if key not in _UNSAID}
        case list():
            return [_without_instants(item) for item in value]
        case _:
            return value


_UNSAID = frozenset({"timestamp", "run_id", "conversation_id", "tool_call_id", "usage", "provider_response_id"})
