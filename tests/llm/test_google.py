"""Google's real client against a server that answers as Gemini does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pilothouse.domain.prices import Usage
from pilothouse.errors import PilothouseError
from tests.llm.conftest import MakeGateway, ask, served

ANSWER: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello from Gemini"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 10,
        "totalTokenCount": 130,
    },
    "modelVersion": "gemini-2.5-flash",
}
BUSY: dict[str, Any] = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
BAD_KEY: dict[str, Any] = {
    "error": {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
}


class Gemini:
    """Answers with `replies` in turn, then well; `keys` are those it was asked with."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.url = ""

    async def generate(self, request: Request) -> JSONResponse:
        self.keys.append(request.headers.get("x-goog-api-key"))
        status, body = self.replies.pop(0) if self.replies else (200, ANSWER)
        return JSONResponse(body, status)


@pytest.fixture
def gemini(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gemini]:
    gemini = Gemini()
    monkeypatch.setenv("GOOGLE_API_KEY", "google-test")
    app = Starlette(routes=[Route("/v1beta/models/{name}", gemini.generate, methods=["POST"])])
    with served(app) as gemini.url:
        yield gemini


def settings(gemini: Gemini, *more: str) -> dict[str, Any]:
    route = {"models": ["google:gemini-2.5-flash", *more]}
    return {"routes": {"default": route}, "providers": {"google": {"base_url": gemini.url}}}


async def test_gemini_answers_and_is_priced_by_the_classes_of_its_usage(gemini: Gemini, connect: MakeGateway) -> None:
    answer = await connect(**settings(gemini)).answer(ask("Hello"))

    (call,) = answer.calls
    assert (answer.response.text, gemini.keys) == ("Hello from Gemini", ["google-test"])
    assert call.usage == Usage(input=60, cache_read=40, output=20, reasoning=10)
    assert call.cost_microusd > 0


async def test_an_overloaded_gemini_is_asked_once_and_passed_over(gemini: Gemini, connect: MakeGateway) -> None:
    gemini.replies = [(503, BUSY)]

    answer = await connect(**settings(gemini, "offline:echo")).answer(ask("Hello"))

    assert [(call.outcome, call.reason) for call in answer.calls] == [("failed", "unavailable"), ("answered", None)]
    assert len(gemini.keys) == 1


async def test_a_key_that_gemini_refuses_is_told_as_such(gemini: Gemini, connect: MakeGateway) -> None:
    gemini.replies = [(400, BAD_KEY)]

    with pytest.raises(PilothouseError, match="check that key"):
        await connect(**settings(gemini)).answer(ask("Hello"))
