"""The pure rules around models: buckets, prices, windows, routes, headers, scripts, secrets, samples."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.clock import from_datetime, parse_isoformat, to_datetime
from pilothouse.domain.buckets import LONGEST_LINE_US, MINUTE_US, Bucket, give_back, stand_in_line, take
from pilothouse.domain.lanes import Lane
from pilothouse.domain.prices import Price, Usage
from pilothouse.domain.routes import Route, parse_model
from pilothouse.domain.secrets import SecretRule, redact
from pilothouse.domain.windows import Exchange, Window, choose
from pilothouse.errors import ConfigError
from pilothouse.llm.headers import blocked_seconds
from pilothouse.llm.offline import as_reply, find_responder
from pilothouse.llm.script import Question, Reply, ToolUse, echo, parse_script

LANES = st.sampled_from(list(Lane))


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 500), LANES), max_size=80))
def test_no_more_than_a_bucket_and_its_refill_goes_out(per_minute: int, requests: list[tuple[int, int, Lane]]) -> None:
    bucket, now, taken = Bucket("b", per_minute), 0, 0
    for passed, units, lane in requests:
        now += passed
        due_at, wait = take(bucket, units, now, lane)
        assert wait >= 0
        if wait == 0:
            taken += units
            bucket = bucket._replace(due_at=due_at)
        refilled = per_minute * (1 + now / MINUTE_US)
        assert taken <= refilled + max((units for _, units, _ in requests), default=0) + 1


@given(st.integers(1, 1000), st.integers(1, 10_000), LANES)
def test_whoever_waits_as_told_gets_through(per_minute: int, units: int, lane: Lane) -> None:
    bucket = Bucket("b", per_minute, due_at=3 * MINUTE_US)

    _, wait = take(bucket, units, 0, lane)

    assert take(bucket, units, wait, lane)[1] <= 1


def test_whoever_waits_in_line_comes_back_at_a_time_of_its_own() -> None:
    wanted, end, waits = [(Bucket("b", 60), 1), (Bucket("c", 6_000), 1)], 0, list[int]()

    for _ in range(1_000):
        end, wait_us = stand_in_line(end, wanted, 7, 2_000_000)
        waits.append(wait_us)
    _, after = stand_in_line(end, wanted, end + 1, 2_000_000)

    assert waits[:3] == [2_000_000, 2_500_000, 3_000_000]  # two in the second in which there is room for one
    assert max(waits) == 2_000_000 + LONGEST_LINE_US
    assert max(Counter(waits).values()) <= 5
    assert after == 2_000_000  # everybody in the line has come back


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = Bucket("b", 100)
    due_at, _ = take(bucket, 100, 0, Lane.CRITICAL)
    full = bucket._replace(due_at=due_at)
    assert take(full, 50, 0, Lane.CRITICAL)[1] > 0

    returned = full._replace(due_at=give_back(full, 60))

    assert take(returned, 50, 0, Lane.CRITICAL)[1] == 0


USAGES = st.builds(Usage, *[st.integers(0, 10**7)] * 5)
RATES = st.decimals(0, 1000, places=4).map(float)


@given(USAGES, RATES, RATES)
def test_a_cost_is_exact_and_rounded_up(usage: Usage, input_usd: float, output_usd: float) -> None:
    price = Price(input_usd, output_usd)

    exact = Decimal(str(input_usd)) * usage.total_input + Decimal(str(output_usd)) * usage.total_output

    assert exact <= price.rates.cost_microusd(usage) < exact + 1


def test_each_class_has_its_own_price() -> None:
    price = Price(1, 10, cache_read_usd=0.1, cache_write_usd=1.25, reasoning_usd=20)

    assert price.rates.cost_microusd(Usage(1000, 1000, 1000, 1000, 1000)) == 1000 + 100 + 1250 + 10_000 + 20_000
    with pytest.raises(ValueError, match="input_usd is -1"):
        Price(-1, 0)


EXCHANGES = st.lists(
    st.builds(Exchange, st.integers(1, 1000), st.frozensets(st.sampled_from("ab"), max_size=1)), max_size=30
)


@given(EXCHANGES, st.integers(1, 10) | st.none(), st.integers(1, 5000), st.sampled_from([(), ("a",)]))
def test_a_window_keeps_the_latest_and_what_is_retained(
    exchanges: list[Exchange], steps: int | None, max_tokens: int, retain: tuple[str, ...]
) -> None:
    window = Window(steps, max_tokens, retain)

    leaving = choose(window, 10, exchanges)
    kept = [exchange for place, exchange in enumerate(exchanges) if place not in leaving]

    assert leaving == sorted(leaving)
    assert not exchanges or kept[-1] == exchanges[-1]
    assert all(exchanges[place].tools.isdisjoint(retain) for place in leaving)
    loose = [exchange for exchange in kept[:-1] if exchange.tools.isdisjoint(retain)]
    if loose:  # something could still leave, so it did not have to
        assert sum(exchange.tokens for exchange in kept) + 10 <= max_tokens
        assert steps is None or len(kept) <= steps


def test_routes_say_what_does_not_fit() -> None:
    assert str(parse_model("openai:gpt-5-mini")) == "openai:gpt-5-mini"
    for text in ("gpt-5", ":x", "x:", " openai:x"):
        with pytest.raises(ValueError, match="is no model; write PROVIDER:MODEL"):
            parse_model(text)
    with pytest.raises(ValueError, match="models is empty"):
        Route(())
    with pytest.raises(ValueError, match="timeout_seconds is 0"):
        Route(("offline:echo",), timeout_seconds=0)


NOW = 1_800_000_000_000_000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "nonsense"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2h"}, 300.0),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "20"}, 20.0),
    ],
)
def test_headers_say_when_there_is_room_again(headers: dict[str, str], seconds: float | None) -> None:
    assert blocked_seconds(headers, NOW) == seconds


def test_anthropics_headers_name_an_instant() -> None:
    at = to_datetime(NOW + 12_000_000).isoformat()
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": at}

    assert blocked_seconds(headers, NOW) == pytest.approx(12)
    assert parse_isoformat(at) == from_datetime(to_datetime(NOW + 12_000_000))
    assert parse_isoformat("2026-01-01T00:00:00") is None


def test_secrets_are_taken_out_and_belong_to_somebody() -> None:
    rule = SecretRule(env="TOKEN", agents=("a",), tenants={"acme": "ACME_TOKEN"})

    assert redact("with s3cret-token inside", frozenset({"s3cret-token", "a"})) == "with *** inside"
    assert rule.variable("X", agent="b", tenant="acme") is None
    assert rule.variable("X", agent="a", tenant="acme") == "ACME_TOKEN"
    assert rule.variable("X", agent="a", tenant="other") == "TOKEN"
    assert SecretRule(tenants={"acme": "T"}).variable("X", agent="a", tenant="other") is None
    assert SecretRule().variable("X", agent="a", tenant="other") == "X"


# --- scripts -----------------------------------------------------------------------------------


def ask(text: str, **options: Any) -> Question:
    return Question("gpt-5", text, **options)


def test_the_first_entry_that_fits_answers() -> None:
    script = parse_script(
        [
            {"when": {"model": "claude*"}, "say": "claude"},
            {"when": {"contains": ["refund", "money back"]}, "times": 1, "say": "once"},
            {
                "when": {"matches": r"order (?P<n>\d+)"},
                "call": {"tool": "lookup", "arguments": {"n": "{n}", "a": ["{n}"]}},
            },
            {"when": {"after": "lookup"}, "say": "looked"},
            {"when": {"asks_for": ["kind"]}, "json": {"kind": "other"}},
            {"say": "else"},
        ]
    )

    assert script(ask("REFUND please")).text == "once"
    assert script(ask("refund order 17")).calls == (ToolUse("lookup", {"n": "17", "a": ["17"]}),)
    assert script(ask("x", after="lookup")).text == "looked"
    assert script(ask("x", schema={"properties": {"kind": {}}})).json == {"kind": "other"}
    assert script(ask("refund")).text == "else"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a script is a list of answers"),
        ("x", "a script is a list of answers"),
        (["x"], "entry 1 is 'x'"),
        ([{"say": "a", "sya": "b"}], "unknown key 'sya'; did you mean 'say'"),
        ([{"when": "contains", "say": "a"}], "when is 'contains'; it is a mapping"),
        ([{"when": {"contains": 5}, "say": "a"}], "contains is 5; it is text, or a list of texts"),
        ([{"say": "a", "times": True}], "times is True; it is a number of 1 or more"),
        ([{"say": "a", "delay_seconds": "soon"}], "delay_seconds is 'soon'; it is a number of seconds"),
        ([{"call": 5}], "call is 5; it is `tool: NAME`"),
        ([{"when": {"contains": "x"}}], "exactly one of say, json, call and fault"),
        ([{"fault": "meteor"}], "fault 'meteor' does not exist"),
        ([{"matches": "(", "say": "x"}], "matches is no pattern"),
        ([{"call": ["x"]}], "a call is `tool: NAME`"),
    ],
)
def test_a_script_that_does_not_fit_says_where(content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_script(content)


def test_a_script_without_an_answer_says_what_was_asked() -> None:
    with pytest.raises(ConfigError, match=r"script has no answer for 'hello' \(after: nothing, asks_for: text\)"):
        parse_script([{"when": {"contains": "x"}, "say": "y"}])(ask("hello"))


def test_echo_fits_any_form() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/B"}, "c": {"type": "array", "minItems": 1}},
        "required": ["a", "b", "c"],
        "$defs": {"B": {"enum": ["x", "y"]}},
    }

    assert echo(ask("hi")).text == "hi"
    assert echo(ask("hi", schema=schema)).json == {"a": "hi", "b": "x", "c": [{}]}


def rules(question: Question) -> Any:
    return {"say": question.text, "call": ToolUse("t", {}), "json": {"a": 1}, "bad": object()}[question.text]


def test_rules_of_ones_own_answer() -> None:
    respond = find_responder(f"rules:{__name__}:rules")

    assert [respond(ask(text)) for text in ("say", "call", "json")] == [
        Reply(text="say"),
        Reply(calls=(ToolUse("t", {}),)),
        Reply(json={"a": 1}),
    ]
    with pytest.raises(ConfigError, match="answered with a object"):
        respond(ask("bad"))
    assert as_reply(Reply(text="x"), "here").text == "x"
    for name in ("nothing", "rules:no.such:thing", "scripted:/no/such/file", "rules:"):
        with pytest.raises(ConfigError):
            find_responder(name)
