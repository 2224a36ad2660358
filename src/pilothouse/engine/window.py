"""An agent's context window: shortens a conversation before it is sent, and keeps in the journal what it left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilothouse import payloads
from pilothouse.domain.windows import Exchange, Window, choose
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.journal import StepRequest
from pilothouse.engine.steps import answer_of, store
from pilothouse.llm.messages import conversation_text, split_exchanges, tools_in, with_summary
from pilothouse.llm.prompts import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic_ai.messages import ModelMessage

    Summarise = Callable[[str, str, str], Awaitable[str]]

CONTEXT_KIND = "context"
SUMMARY_PROMPT = (
    "Sum up this part of a conversation in a few sentences. Keep names, numbers, decisions and open points."
)


async def fit(
    attempt: Attempt, asked: StepRequest, messages: Sequence[ModelMessage], summarise: Summarise
) -> list[ModelMessage]:
    """What goes to the model in the place of `messages`. An earlier attempt's choice stands.

    `summarise` takes a step name, a route and a text.
    """
    window = attempt.agent.options.window
    if window is None:
        return list(messages)
    head, exchanges = split_exchanges(messages)
    sizes = [Exchange(estimate_tokens(each), tools_in(each)) for each in exchanges]
    leaving = choose(window, estimate_tokens(head), sizes)
    name = f"{asked.key}.context"
    if not leaving and not attempt.journal.knows(name):
        return list(messages)
    kept = await _kept_choice(attempt, name, leaving, window, exchanges, summarise)
    stay = [message for place, each in enumerate(exchanges) if place not in kept["left_out"] for message in each]
    return with_summary(head, kept["summary"], stay)


async def _kept_choice(
    attempt: Attempt,
    name: str,
    leaving: list[int],
    window: Window,
    exchanges: Sequence[Sequence[ModelMessage]],
    summarise: Summarise,
) -> dict[str, Any]:
    asked, stored = attempt.journal.open(name, CONTEXT_KIND, {"context": name})
    if stored is not None:
        kept: dict[str, Any] = answer_of(stored, None)
        return kept
    summary = None
    if window.summarise is not None and leaving:
        text = conversation_text([message for place in leaving for message in exchanges[place]])
        summary = await summarise(f"{name}.summary", window.summarise, f"{SUMMARY_PROMPT}\n\n{text}")
    choice = {"left_out": leaving, "of": len(exchanges), "summary": summary}
    await store(attempt, asked, payloads.encode(choice))
    return choice
