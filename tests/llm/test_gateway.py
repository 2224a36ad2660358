"""The gateway against a real server with the providers' real clients: fallback, keys, limits, prices, kept answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse.domain.lanes import Lane
from pilothouse.domain.prices import Usage
from pilothouse.errors import ConfigError, ModelRefused, ModelUnavailable, PromptTooLong, UnknownPrice
from pilothouse.llm.prompts import Asker
from pilothouse.telemetry.event import Event
from pilothouse.telemetry.events import BreakerOpened, ModelFailed
from tests.llm.conftest import MakeGateway, Serving, StartProvider, ask
from tests.patience import WAIT_SECONDS

OPENAI, ANTHROPIC = "openai:gpt-5-mini", "anthropic:claude-haiku-4-5"


def route(*models: str, **caps: Any) -> dict[str, Any]:
    return {"default": {"models": models, **caps}}


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
async def test_an_answer_is_counted_and_priced(provider: Serving, connect: MakeGateway, model: str) -> None:
    answer = await connect(routes=route(model)).answer(ask("What is a pilothouse? " * 50))

    (call,) = answer.calls
    assert answer.response.text == ("What is a pilothouse? " * 50)
    assert (call.model, call.outcome, call.price) == (model, "answered", "genai-prices")
    assert call.usage.input > 200
    assert call.usage.output > 200
    assert call.cost_microusd > 0
    assert '"output_tokens"' in str(call.raw_usage)


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
async def test_text_streams_in_pieces(provider: Serving, connect: MakeGateway, model: str) -> None:
    pieces = Heard()

    answer = await connect(routes=route(model)).answer(ask("a long enough text to be cut", on_piece=pieces))

    assert len(pieces.texts) > 1
    assert "".join(pieces.texts) == answer.response.text == "a long enough text to be cut"
    assert answer.calls[0].usage.output > 0


class Heard:
    """Listens to a stream."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @property
    def has_heard(self) -> bool:
        return bool(self.texts)

    def __call__(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rate_limited", "rate_limited"),
        ("server_error", "unavailable"),
        ("empty", "malformed"),
        ("cut_off", "connection"),
        ("unauthorized", "wrong_key"),
        ("not_found", "unknown_model"),
    ],
)
async def test_the_next_model_answers_where_one_fails(
    provider: Serving, connect: MakeGateway, events: list[Event], fault: str, reason: str
) -> None:
    provider.script({"when": {"model": "gpt*"}, "fault": fault}, {"say": "Hello from the second"})

    answer = await connect(routes=route(OPENAI, ANTHROPIC)).answer(ask("Hello"))

    assert answer.response.text == "Hello from the second"
    assert [(call.model, call.outcome, call.reason) for call in answer.calls] == [
        (OPENAI, "failed", reason),
        (ANTHROPIC, "answered", None),
    ]
    assert [event.reason for event in events if isinstance(event, ModelFailed)] == [reason]
    assert provider.requests == 2  # the clients' own retries are off


async def test_a_model_that_takes_too_long_is_passed_over(provider: Serving, connect: MakeGateway) -> None:
    provider.script({"when": {"model": "gpt*"}, "fault": "timeout"}, {"say": "Quick"})

    answer = await connect(routes=route(OPENAI, ANTHROPIC, timeout_seconds=0.5)).answer(ask("Hello"))

    assert [call.reason for call in answer.calls] == ["timeout", None]


async def test_what_waiting_can_cure_says_when_to_ask_again(provider: Serving, connect: MakeGateway) -> None:
    provider.script({"fault": "rate_limited", "retry_after_seconds": 7})

    with pytest.raises(ModelUnavailable, match=r"no model of route 'default' answers now.*429") as caught:
        await connect(routes=route(OPENAI)).answer(ask("Hello"))

    assert caught.value.retry_after_seconds == pytest.approx(7)
    assert len(caught.value.calls) == 1


async def test_retry_after_is_obeyed_by_every_worker(provider: Serving, connect: MakeGateway) -> None:
    provider.script({"fault": "rate_limited", "retry_after_seconds": 30, "times": 1}, {"say": "Hello"})
    with pytest.raises(ModelUnavailable):
        await connect(routes=route(OPENAI)).answer(ask("Hello"))

    with pytest.raises(ModelUnavailable, match="the key in OPENAI_API_KEY rests after rate_limited") as caught:
        await connect(routes=route(OPENAI)).answer(ask("Hello"))

    assert 25 < caught.value.retry_after_seconds <= 30
    assert provider.requests == 1


async def test_another_key_is_used_where_one_is_limited(
    start_provider: StartProvider, connect: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = start_provider(key="second")
    monkeypatch.setenv("KEY_1", "first")
    monkeypatch.setenv("KEY_2", "second")
    own = {"acme": {"base_url": f"{served.url}/v1", "keys": ["KEY_1", "KEY_2"]}}
    prices = {"acme:*": {"input_usd": 1.0, "output_usd": 2.0}}

    gateway = connect(routes=route("acme:large"), providers=own, prices=prices)
    answers = [await gateway.answer(ask(f"Hello {number}")) for number in range(4)]

    assert [answer.response.text for answer in answers] == [f"Hello {number}" for number in range(4)]
    assert served.requests == 5  # the key that is not accepted was tried once, then left alone


async def test_a_provider_without_a_key_says_which_to_set(
    connect: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ModelRefused, match="there is no key for provider 'openai': set OPENAI_API_KEY"):
        await connect(routes=route(OPENAI)).answer(ask("Hello"))


async def test_a_wrong_key_says_so(provider: Serving, connect: MakeGateway) -> None:
    provider.key = "another"

    with pytest.raises(ModelRefused, match=r"401: .*\(the key in OPENAI_API_KEY\); check that key in the worker's"):
        await connect(routes=route(OPENAI)).answer(ask("Hello"))


async def test_a_model_without_a_known_price_is_not_asked(provider: Serving, connect: MakeGateway) -> None:
    with pytest.raises(UnknownPrice, match=r'\[prices\."openai:gpt-none"\] input_usd'):
        await connect(routes=route("openai:gpt-none")).answer(ask("Hello"))

    assert provider.requests == 0


async def test_a_price_of_ones_own_beats_the_list(provider: Serving, connect: MakeGateway) -> None:
    gateway = connect(routes=route(OPENAI), prices={OPENAI: {"input_usd": 1.0, "output_usd": 10.0}})

    (call,) = (await gateway.answer(ask("Hello"))).calls

    assert call.cost_microusd == call.usage.input + 10 * call.usage.output
    assert call.price == "pilothouse.toml"


async def test_a_prompt_over_the_cap_is_not_sent(provider: Serving, connect: MakeGateway) -> None:
    with pytest.raises(PromptTooLong, match=r"about 1,3\d\d,\d\d\d tokens.*max_input_tokens"):
        await connect(routes=route(OPENAI)).answer(ask("word " * 1_048_576))

    assert provider.requests == 0


async def test_a_run_that_asks_too_often_is_stopped(provider: Serving, connect: MakeGateway) -> None:
    asker = Asker("run-1", "triage", "default", Lane.NORMAL, calls_before=3)

    with pytest.raises(ModelRefused, match=r"has asked models 3 times.*max_calls_per_run"):
        await connect(routes=route(OPENAI, max_calls_per_run=3)).answer(ask("Hello", asker=asker))


async def test_output_stays_under_the_routes_cap(provider: Serving, connect: MakeGateway) -> None:
    gateway = connect(routes=route(OPENAI, max_output_tokens=50))

    await gateway.answer(ask("Hello", settings={"max_tokens": 100_000}))
    await gateway.answer(ask("Hello", settings={"max_tokens": 20}))

    assert provider.limits == [50, 20]


async def test_unknown_routes_and_providers_say_what_to_add(connect: MakeGateway) -> None:
    gateway = connect(routes=route("nowhere:model"), prices={"nowhere:*": {"input_usd": 0, "output_usd": 0}})

    with pytest.raises(ConfigError, match=r"there is no route 'smart' \(routes: default\)"):
        await gateway.answer(ask("Hello", route="smart"))
    with pytest.raises(ConfigError, match=r"provider 'nowhere' is not known.*\[providers.nowhere\] base_url"):
        await gateway.answer(ask("Hello"))


async def test_a_breaker_opens_for_all_workers_and_recovers(
    provider: Serving, connect: MakeGateway, events: list[Event]
) -> None:
    provider.script({"when": {"model": "gpt*"}, "fault": "server_error"}, {"say": "Hello"})
    first, second = connect(routes=route(OPENAI, ANTHROPIC)), connect(routes=route(OPENAI, ANTHROPIC))
    for _ in range(5):
        await first.answer(ask("Hello"))

    answer = await second.answer(ask("Hello"))
    assert [(call.outcome, call.reason) for call in answer.calls] == [("skipped", "breaker_open"), ("answered", None)]
    assert [event.breaker for event in events if isinstance(event, BreakerOpened)] == [f"model:{OPENAI}"]

    provider.script({"say": "Well again"})
    async with asyncio.timeout(WAIT_SECONDS):
        while (await second.answer(ask("Hello"))).calls[0].outcome == "skipped":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.1)
    await first.answer(ask("Hello"))
    assert (await first.answer(ask("Hello"))).calls[0].model == OPENAI


async def test_limits_hold_for_all_workers_together(provider: Serving, connect: MakeGateway) -> None:
    limited = {"openai": {"requests_per_minute": 10}}
    gateways = [connect(routes=route(OPENAI), providers=limited) for _ in range(3)]

    answers = await asyncio.gather(
        *(gateways[n % 3].answer(ask(f"Hello {n}")) for n in range(30)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, ModelUnavailable)]
    assert provider.requests == len(answers) - len(refused) <= 10
    assert all(0 < error.retry_after_seconds <= 60 for error in refused)


async def test_the_last_room_is_for_the_upper_lanes(provider: Serving, connect: MakeGateway) -> None:
    gateway = connect(routes=route(OPENAI), providers={"openai": {"requests_per_minute": 10}})

    async def answered(lane: Lane) -> int:
        count = 0
        while True:
            try:
                await gateway.answer(ask("Hello", asker=Asker("run-1", "triage", "default", lane)))
            except ModelUnavailable:
                return count
            count += 1

    counts = [await answered(lane) for lane in (Lane.LOW, Lane.NORMAL, Lane.CRITICAL)]

    assert counts == [6, 3, 1]


async def test_token_limits_count_what_was_used(provider: Serving, connect: MakeGateway) -> None:
    limited = {"openai": {"tokens_per_minute": 10_000}}
    gateway = connect(routes=route(OPENAI, max_output_tokens=4_000), providers=limited)

    answers = [await gateway.answer(ask("Hello")) for _ in range(20)]  # each takes 4,000 first, and gives most back

    assert len(answers) == 20


async def test_an_equal_question_is_answered_once_for_a_tenant(provider: Serving, connect: MakeGateway) -> None:
    gateway = connect(routes=route(OPENAI, cache_seconds=60))
    first = await gateway.answer(ask("Hello"))
    again = await gateway.answer(ask("Hello"))
    other = await gateway.answer(ask("Hello", asker=Asker("run-2", "triage", "acme", Lane.NORMAL)))
    different = await gateway.answer(ask("Hello!"))

    assert [answer.calls[0].outcome for answer in (first, again, other, different)] == [
        "answered",
        "cached",
        "answered",
        "answered",
    ]
    assert (again.calls[0].model, again.calls[0].cost_microusd) == (OPENAI, 0)
    assert again.response.text == "Hello"
    assert provider.requests == 3


async def test_an_offline_model_stands_in_for_all(connect: MakeGateway) -> None:
    gateway = connect(routes=route(OPENAI), offline_model="offline:echo")

    answer = await gateway.answer(ask("Hello"))

    assert answer.response.text == "Hello"
    assert (answer.calls[0].model, answer.calls[0].cost_microusd) == ("offline:echo", 0)
    assert answer.calls[0].usage != Usage()


async def test_a_broken_answer_in_a_stream_is_not_continued_by_another_model(
    provider: Serving, connect: MakeGateway
) -> None:
    provider.script({"when": {"model": "gpt*"}, "say": "a long enough answer to break", "delay_seconds": 0.0})
    provider.responder = _cutting(provider.responder)
    pieces = Heard()

    with pytest.raises(ModelUnavailable, match="connection"):
        await connect(routes=route(OPENAI, ANTHROPIC)).answer(ask("Hello", on_piece=pieces))

    assert len(pieces.texts) >= 1
    assert provider.requests == 1


def _cutting(responder: Any) -> Any:
    from dataclasses import replace

    return lambda question: replace(responder(question), fault="cut_off")
