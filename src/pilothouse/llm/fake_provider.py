"""A model provider for tests and trials: a real HTTP server that speaks OpenAI's and Anthropic's protocols.

Its answers come from a script, or echo the question; its faults are those of real providers, on real connections.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pilothouse.errors import ConfigError
from pilothouse.llm.offline import make_response, read_question
from pilothouse.llm.prompts import estimate_tokens
from pilothouse.llm.script import FaultName, Reply, Responder, echo
from pilothouse.llm.wire import PROTOCOLS
from pilothouse.llm.wire.request import BadRequest, WireRequest, key_of

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models.function import AgentInfo

STATUSES: dict[str, int] = {
    "rate_limited": 429,
    "server_error": 500,
    "unauthorized": 401,
    "not_found": 404,
    "rejected": 400,
}
RANDOM_FAULTS: tuple[FaultName, ...] = ("rate_limited", "server_error", "cut_off", "broken_json")
HANG_SECONDS = 3600.0
KEPT_REQUESTS = 1000


@dataclass(slots=True)
class FakeProvider:
    """`fault_rate` is the share of answers, in [0, 1], that fail in one of the usual ways, chosen with `seed`.

    `asked` holds the latest requests. `latency_seconds` passes before every answer. `key`, if given, is the only one
    that is accepted.
    """

    responder: Responder = echo
    latency_seconds: float = 0.0
    fault_rate: float = 0.0
    key: str | None = None
    seed: int = 0
    requests: int = 0
    asked: deque[WireRequest] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if not 0 <= self.fault_rate <= 1:
            raise ConfigError(f"the fault rate is {self.fault_rate}; it must be between 0 and 1")
        self._random.seed(self.seed)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                *(Route(path, self._serve, methods=["POST"]) for path in PROTOCOLS),
                Route("/v1/models", self._models),
            ]
        )

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "pilothouse"}]})

    async def _serve(self, request: Request) -> Response:
        protocol, key = PROTOCOLS[request.url.path], key_of(request.headers)
        self.requests += 1
        try:
            asked: WireRequest = protocol.read(json.loads(await request.body()))
        except (ValueError, BadRequest, KeyError, TypeError) as error:
            return JSONResponse(protocol.error(400, f"{error}"), 400)
        if self.key is not None and key != self.key:
            return JSONResponse(protocol.error(401, "this is not the API key"), 401)
        self.asked.append(asked)
        info = _info(asked)
        try:
            reply = self._with_chance(self.responder(read_question(asked.model, asked.messages, info)))
        except ConfigError as error:
            return JSONResponse(protocol.error(400, str(error)), 400)
        await asyncio.sleep(self.latency_seconds + (0 if asked.is_stream else reply.delay_seconds))
        return await _render(protocol, asked, reply, info)

    def _with_chance(self, reply: Reply) -> Reply:
        if reply.fault is not None or self._random.random() >= self.fault_rate:
            return reply
        return replace(reply, fault=self._random.choice(RANDOM_FAULTS))


def _info(asked: WireRequest) -> AgentInfo:
    from pydantic_ai.models.function import AgentInfo

    return AgentInfo(
        function_tools=asked.parameters.function_tools,
        allow_text_output=asked.parameters.allow_text_output,
        output_tools=asked.parameters.output_tools,
        model_settings=asked.settings,
        model_request_parameters=asked.parameters,
        instructions=None,
    )


async def _render(protocol: ModuleType, asked: WireRequest, reply: Reply, info: AgentInfo) -> Response:
    if reply.fault in STATUSES:
        status = STATUSES[reply.fault]
        wait = reply.retry_after_seconds
        headers = {"retry-after": f"{wait:g}"} if wait is not None else {}
        return JSONResponse(protocol.error(status, f"{reply.fault}, as scripted"), status, headers)
    if reply.fault == "timeout":
        await asyncio.sleep(HANG_SECONDS)
    response = _counted(make_response(reply, info), asked)
    if asked.is_stream:
        pieces = protocol.events(response, asked.model)
        return StreamingResponse(_paced(pieces, reply), media_type="text/event-stream")
    body = protocol.render(response, asked.model)
    if reply.fault == "empty":
        body = _emptied(body)
    if reply.fault == "cut_off":
        return StreamingResponse(_cut(json.dumps(body)), media_type="application/json")
    return JSONResponse(body)


def _counted(response: ModelResponse, asked: WireRequest) -> ModelResponse:
    from pydantic_ai.usage import RequestUsage

    response.usage = RequestUsage(
        input_tokens=estimate_tokens(asked.messages), output_tokens=estimate_tokens([response])
    )
    return response


def _emptied(body: dict[str, Any]) -> dict[str, Any]:
    return {name: [] if name in ("choices", "output", "content") else value for name, value in body.items()}


async def _paced(events: Iterator[str], reply: Reply) -> AsyncIterator[str]:
    """The events, `delay_seconds` apart; one that is to be cut off ends in the middle of its connection."""
    for number, text in enumerate(events):
        await asyncio.sleep(reply.delay_seconds)
        if reply.fault == "cut_off" and number == 2:
            raise ConnectionAbortedError("cut off, as scripted")
        yield text


async def _cut(text: str) -> AsyncIterator[str]:
    yield text[: len(text) // 2]
    raise ConnectionAbortedError("cut off, as scripted")
