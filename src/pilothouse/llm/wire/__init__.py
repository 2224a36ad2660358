"""The protocols that models are spoken to in, seen from the server's side: a request read, an answer rendered."""

from types import ModuleType

from pilothouse.llm.wire import anthropic, openai, responses

PROTOCOLS: dict[str, ModuleType] = {
    "/v1/chat/completions": openai,
    "/v1/responses": responses,
    "/v1/messages": anthropic,
}
"""By the path that a client posts to."""
