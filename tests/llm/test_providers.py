"""Many questions at once are spread over several clients, few of them always meet the same one."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from pilothouse.domain.routes import ModelId
from pilothouse.errors import ConfigError
from pilothouse.llm.providers import CALLS_OF_CLIENT, MAX_CLIENTS, Key, Providers

MODEL, KEY = ModelId("openai", "gpt-5-mini"), Key("OPENAI_API_KEY", "secret")


async def test_questions_share_a_client_up_to_its_share_and_come_back_to_the_first() -> None:
    providers = Providers({}, {})
    with ExitStack() as stack:
        asked = [stack.enter_context(providers.model(MODEL, KEY)) for _ in range(2 * CALLS_OF_CLIENT + 1)]
    with providers.model(MODEL, KEY) as later, pytest.raises(ZeroDivisionError), providers.model(MODEL, KEY) as failing:
        _ = 1 / 0
    with providers.model(MODEL, Key("OTHER", "another secret")) as other:
        pass

    assert list(Counter(map(id, asked)).values()) == [CALLS_OF_CLIENT, CALLS_OF_CLIENT, 1]
    assert later is failing is asked[0]
    assert all(other is not each for each in asked)
    clients: set[Any] = {model.client._client for model in asked}  # type: ignore[attr-defined]  # of OpenAI's class
    await providers.close()
    assert len(clients) == 3
    assert all(client.is_closed for client in clients)


async def test_the_number_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Providers({}, {})
    monkeypatch.setattr("pilothouse.llm.providers.MAX_CLIENTS", 2)

    with ExitStack() as stack:
        asked = [stack.enter_context(providers.model(MODEL, KEY)) for _ in range(4 * CALLS_OF_CLIENT)]

    assert list(Counter(map(id, asked)).values()) == [2 * CALLS_OF_CLIENT] * 2
    assert MAX_CLIENTS * CALLS_OF_CLIENT >= 512
    await providers.close()


def test_a_provider_that_nobody_described_has_no_model() -> None:
    with (
        pytest.raises(ConfigError, match="provider 'nobody' is not known"),
        Providers({}, {}).model(ModelId("nobody", "x"), KEY),
    ):
        pass
