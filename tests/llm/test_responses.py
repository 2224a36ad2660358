"""OpenAI's responses, with OpenAI's real client against the fake provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.llm.conftest import Serving

LOOKUP: Any = {
    "type": "function",
    "name": "lookup",
    "description": "Looks it up",
    "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    "strict": False,
}


@pytest.fixture
async def client(provider: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(max_retries=0) as client:
        yield client


async def test_an_answer_comes_whole(provider: Serving, client: openai.AsyncOpenAI) -> None:
    provider.script({"say": "Hello there"})

    response = await client.responses.create(
        model="gpt-5-mini", instructions="Be brief", input="Hello", max_output_tokens=50
    )

    assert (response.output_text, response.status) == ("Hello there", "completed")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert provider.limits == [50]


async def test_a_stream_ends_in_the_same_answer(provider: Serving, client: openai.AsyncOpenAI) -> None:
    text = "One piece after the other, until all of them are there."
    provider.script({"say": text})

    pieces = []
    async with client.responses.stream(model="m", input="Tell me") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
        final = await stream.get_final_response()

    assert (len(pieces) > 1, "".join(pieces), final.output_text) == (True, text, text)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_tool_is_called_and_its_result_is_heard(
    provider: Serving, client: openai.AsyncOpenAI, is_stream: bool
) -> None:
    provider.script(
        {"when": {"after": "lookup"}, "say": "It is 42"},
        {"call": {"tool": "lookup", "arguments": {"id": 42}}},
    )
    said: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Which?"}]}]

    async def ask() -> Any:
        if not is_stream:
            return await client.responses.create(model="m", input=said, tools=[LOOKUP])
        async with client.responses.stream(model="m", input=said, tools=[LOOKUP]) as stream:
            return await stream.get_final_response()

    first = await ask()
    (call,) = first.output
    said += [call.model_dump(exclude={"parsed_arguments"}, exclude_none=True)]
    said.append({"type": "function_call_output", "call_id": call.call_id, "output": "42"})
    second = await ask()

    assert (call.type, call.name, call.arguments) == ("function_call", "lookup", '{"id":42}')
    assert second.output_text == "It is 42"
    assert [len(message.parts) for message in provider.asked[-1].messages] == [1, 1, 1]


async def test_a_form_is_asked_for(provider: Serving, client: openai.AsyncOpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await client.responses.create(
        model="m", input="?", text={"format": {"type": "json_schema", "name": "out", "schema": schema}}
    )

    wanted = provider.asked[-1].parameters.output_object
    assert wanted is not None
    assert wanted.json_schema == schema


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"input": 3}, "input is 3; it must be a list"),
        ({"input": "?", "previous_response_id": "resp_1"}, "send the whole conversation"),
        ({"input": "?", "tools": [{"type": "web_search"}]}, "only functions can be offered here"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "the type 'item_reference'"),
        ({"input": [{"role": "owner", "content": "x"}]}, "the role 'owner'"),
    ],
)
async def test_what_cannot_be_done_is_told(
    provider: Serving, client: openai.AsyncOpenAI, request_: dict[str, Any], told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        await client.responses.create(model="m", **request_)


async def test_faults_are_those_of_the_provider(provider: Serving, client: openai.AsyncOpenAI) -> None:
    provider.script({"fault": "rate_limited"})

    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="m", input="?")
