"""What a request in any of the protocols says of how it is to be answered, and what none of them can carry here."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.llm.wire import PROTOCOLS
from pilothouse.llm.wire.request import BadRequest

SAMPLING = {"temperature": 0.1, "top_p": 0.5}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"name": "lookup"}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 9}
RESPONSE: dict[str, Any] = {"model": "m", "input": [{"role": "user", "content": "?"}], "max_output_tokens": 9}
FUNCTION = {"type": "function", "function": TOOL}
REQUESTS = {
    "/v1/chat/completions": CHAT | {"stop": "END", "tools": [FUNCTION], "tool_choice": FUNCTION},
    "/v1/responses": RESPONSE | {"tools": [TOOL | {"type": "function"}], "tool_choice": TOOL | {"type": "function"}},
    "/v1/messages": CHAT | {"stop_sequences": ["END"], "tools": [TOOL], "tool_choice": TOOL | {"type": "tool"}},
}


@pytest.mark.parametrize("path", PROTOCOLS)
def test_what_is_said_of_the_answer_is_carried_over(path: str) -> None:
    asked = PROTOCOLS[path].read(REQUESTS[path] | SAMPLING)
    must_call = PROTOCOLS[path].read(REQUESTS[path] | {"tool_choice": {"type": "any"}})
    without_tools = PROTOCOLS[path].read(REQUESTS[path] | {"tools": []})

    stop = {} if path == "/v1/responses" else {"stop_sequences": ["END"]}
    assert asked.settings == SAMPLING | stop | {"max_tokens": 9, "tool_choice": ["lookup"]}
    assert must_call.settings["tool_choice"] == "required"
    assert "tool_choice" not in without_tools.settings


@pytest.mark.parametrize("path", PROTOCOLS)
def test_a_picture_is_refused_and_not_left_out(path: str) -> None:
    said = "input" if path == "/v1/responses" else "messages"

    with pytest.raises(BadRequest, match="the type 'image_url'; only text"):
        PROTOCOLS[path].read(REQUESTS[path] | {said: [{"role": "user", "content": [PICTURE]}]})
